"""Writes docs/manifest.schema.json and docs/config.schema.json from the code that they describe."""

import json
from pathlib import Path

from probrt.runtime.bundle import manifest_file
from probrt.trainer.config import config

for name, schema in (("manifest", manifest_file.json_schema()), ("config", config.json_schema())):
    text = json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
    (Path(__file__).parent / f"{name}.schema.json").write_text(text)
