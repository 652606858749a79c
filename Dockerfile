# Prediction with nothing but the base install; builds for x86-64 and arm64:
#   docker buildx build --platform linux/amd64,linux/arm64 -t probrt .
#   docker run --rm -v "$PWD:/data" probrt predict --samples 32 imgs/
FROM python:3.12-slim
COPY . /tmp/probrt
RUN pip install --no-cache-dir /tmp/probrt && rm -rf /tmp/probrt && useradd --create-home probrt
USER probrt
WORKDIR /data
ENTRYPOINT ["probrt"]
CMD ["--help"]
