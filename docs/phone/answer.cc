// Answers one image with the TFLite files of a bank, by LiteRT's C API, and combines their draws.
//
//     answer IMAGE.f32 digit:class slant:real ink:binary draws-00.tflite draws-01.tflite ...
//
// IMAGE.f32: the raw values of an image, float32 [height, width, channels]. After it each head with its `kind` of
// probrt.json. Every file holds as many draws, as those of a bundle do. Prints a line per output: its name, its numbers.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "litert/c/litert_common.h"
#include "litert/c/litert_compiled_model.h"
#include "litert/c/litert_environment.h"
#include "litert/c/litert_model.h"
#include "litert/c/litert_options.h"
#include "litert/c/litert_tensor_buffer.h"
#include "litert/c/litert_tensor_buffer_requirements.h"

using Values = std::vector<double>;
using Outputs = std::map<std::string, Values>;  // of one image, by name

void check(LiteRtStatus status, const char* what) {
  if (status != kLiteRtStatusOk) throw std::runtime_error(what);
}

// Memory for an input or output; the files are made for a batch of 1.
LiteRtTensorBuffer make_buffer(LiteRtEnvironment environment, LiteRtTensor tensor,
                               LiteRtTensorBufferRequirements requirements) {
  LiteRtRankedTensorType type;
  check(LiteRtGetRankedTensorType(tensor, &type), "type of a tensor");
  type.layout.dimensions[0] = 1;
  size_t bytes = 0;
  check(LiteRtGetTensorBufferRequirementsBufferSize(requirements, &bytes), "size of a buffer");
  LiteRtTensorBuffer buffer = nullptr;
  check(LiteRtCreateManagedTensorBuffer(environment, kLiteRtTensorBufferTypeHostMemory, &type, bytes, &buffer),
        "memory for a buffer");
  return buffer;
}

// One file's answer. An app keeps all of this but the last step from image to image.
Outputs run(LiteRtEnvironment environment, const char* path, const std::vector<float>& image) {
  LiteRtModel model = nullptr;
  check(LiteRtCreateModelFromFile(environment, path, &model), path);
  LiteRtOptions options = nullptr;
  check(LiteRtCreateOptions(&options), "options");
  check(LiteRtSetOptionsHardwareAccelerators(options, kLiteRtHwAcceleratorCpu), "the CPU");
  LiteRtCompiledModel graph = nullptr;
  check(LiteRtCreateCompiledModel(environment, model, options, &graph), path);
  LiteRtSignature signature = nullptr;
  check(LiteRtGetModelSignature(model, 0, &signature), "the signature");

  LiteRtTensor tensor = nullptr;
  LiteRtTensorBufferRequirements requirements = nullptr;
  check(LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensor), "the input");
  check(LiteRtGetCompiledModelInputBufferRequirements(graph, 0, 0, &requirements), "the input");
  LiteRtTensorBuffer input = make_buffer(environment, tensor, requirements);
  size_t size = 0;
  check(LiteRtGetTensorBufferRequirementsBufferSize(requirements, &size), "the input");
  if (size < image.size() * sizeof(float)) throw std::runtime_error("the image has more values than the model takes");
  void* memory = nullptr;
  check(LiteRtLockTensorBuffer(input, &memory, kLiteRtTensorBufferLockModeWrite), "the input");
  std::memcpy(memory, image.data(), image.size() * sizeof(float));
  LiteRtUnlockTensorBuffer(input);

  LiteRtParamIndex count = 0;
  check(LiteRtGetNumSignatureOutputs(signature, &count), "the outputs");
  std::vector<LiteRtTensorBuffer> buffers;
  std::vector<size_t> sizes;
  for (LiteRtParamIndex i = 0; i < count; i++) {
    check(LiteRtGetSignatureOutputTensorByIndex(signature, i, &tensor), "an output");
    check(LiteRtGetCompiledModelOutputBufferRequirements(graph, 0, i, &requirements), "an output");
    buffers.push_back(make_buffer(environment, tensor, requirements));
    LiteRtRankedTensorType type;
    LiteRtGetRankedTensorType(tensor, &type);
    size_t size = 1;
    for (unsigned d = 1; d < type.layout.rank; d++) size *= type.layout.dimensions[d];
    sizes.push_back(size);
  }
  check(LiteRtRunCompiledModel(graph, 0, 1, &input, buffers.size(), buffers.data()), "the run");

  Outputs outputs;
  for (LiteRtParamIndex i = 0; i < count; i++) {
    const char* name = nullptr;
    check(LiteRtGetSignatureOutputName(signature, i, &name), "the name of an output");
    check(LiteRtLockTensorBuffer(buffers[i], &memory, kLiteRtTensorBufferLockModeRead), "an output");
    const float* values = static_cast<const float*>(memory);
    outputs[name] = Values(values, values + sizes[i]);
    LiteRtUnlockTensorBuffer(buffers[i]);
    LiteRtDestroyTensorBuffer(buffers[i]);
  }
  LiteRtDestroyTensorBuffer(input);
  LiteRtDestroyCompiledModel(graph);
  LiteRtDestroyOptions(options);
  LiteRtDestroyModel(model);
  return outputs;
}

// The average of one output over all files.
Values average(const std::vector<Outputs>& chunks, const std::string& name) {
  Values sum(chunks[0].at(name).size(), 0.0);
  for (const Outputs& chunk : chunks) {
    for (size_t i = 0; i < sum.size(); i++) sum[i] += chunk.at(name)[i] / chunks.size();
  }
  return sum;
}

double entropy_term(double p) { return p > 0 ? -p * std::log(p) : 0; }

// Mean, total, aleatoric and epistemic of a head over all draws. Numbers: variances, by the law of total variance.
// Classes and flags: entropies in nats; the total is that of the combined mean.
Outputs combine(const std::vector<Outputs>& chunks, const std::string& head, const std::string& kind) {
  Values mean = average(chunks, head + ".mean"), aleatoric = average(chunks, head + ".aleatoric");
  Values total(aleatoric.size(), 0.0), epistemic(aleatoric.size(), 0.0);
  const size_t classes = mean.size() / aleatoric.size();  // 1 for numbers and flags
  for (size_t i = 0; i < total.size(); i++) {
    if (kind == "real") {
      for (const Outputs& chunk : chunks) {
        const double between = chunk.at(head + ".mean")[i] - mean[i];
        epistemic[i] += (chunk.at(head + ".epistemic")[i] + between * between) / chunks.size();
      }
      total[i] = aleatoric[i] + epistemic[i];
    } else {
      for (size_t c = 0; c < classes; c++) total[i] += entropy_term(mean[i * classes + c]);
      if (kind == "binary") total[i] += entropy_term(1 - mean[i]);
      epistemic[i] = std::max(total[i] - aleatoric[i], 0.0);
    }
  }
  return {{"mean", mean}, {"total", total}, {"aleatoric", aleatoric}, {"epistemic", epistemic}};
}

void print(const std::string& name, const Values& values) {
  std::printf("%s", name.c_str());
  for (double value : values) std::printf(" %.9g", value);
  std::printf("\n");
}

int main(int count, char** words) try {
  if (count < 4) throw std::runtime_error("use: answer IMAGE.f32 HEAD:KIND... FILE.tflite...");
  std::ifstream file(words[1], std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), {});
  if (bytes.empty()) throw std::runtime_error(std::string(words[1]) + ": cannot be read");
  std::vector<float> image(bytes.size() / sizeof(float));
  std::memcpy(image.data(), bytes.data(), image.size() * sizeof(float));

  LiteRtEnvironment environment = nullptr;
  check(LiteRtCreateEnvironment(0, nullptr, &environment), "LiteRT");
  std::map<std::string, std::string> heads;
  std::vector<Outputs> chunks;
  for (int i = 2; i < count; i++) {
    const std::string word = words[i];
    const size_t colon = word.find(':');
    if (colon == std::string::npos) {
      chunks.push_back(run(environment, words[i], image));
    } else {
      heads[word.substr(0, colon)] = word.substr(colon + 1);
    }
  }
  LiteRtDestroyEnvironment(environment);
  if (chunks.empty()) throw std::runtime_error("no TFLite file named");
  for (const auto& [head, kind] : heads) {
    if (!chunks[0].count(head + ".mean")) throw std::runtime_error("no head " + head + " in the files");
    for (const auto& [quantity, values] : combine(chunks, head, kind)) print(head + "." + quantity, values);
  }
  for (const char* name : {"novelty.score", "novelty.p_value"}) {  // they depend on no draw
    if (chunks[0].count(name)) print(name, chunks[0].at(name));
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "answer: %s\n", error.what());
  return 1;
}
