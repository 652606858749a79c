"""Which layers of a bundle's files in int8 stay float32, in words."""

from __future__ import annotations

from collections import defaultdict

from probrt.runtime.bundle.manifest import Manifest


def list_float_layers(manifest: Manifest) -> list[str]:
    """Returns a line for each precision and variant in int8 that has layers in float32, or of which there is no file.

    The final layers stay float32 in all of them, and are not listed.
    """
    formats: dict[tuple[str, str], list[str]] = defaultdict(list)
    for record in manifest.provenance.export.get("int8_layers", []):
        layers = record["layers"]
        kept = [layer for layer in layers if layer["precision"] == "float32"]
        reasons = ", ".join(f"{layer['layer']} ({layer['reason']})" for layer in kept)
        if len(kept) < len(layers):
            text = f"in float32 {reasons}" if kept else ""
        else:
            text = f"left out, as no layer can be in int8: {reasons or 'none comes before the final ones'}"
        if text:
            formats[f"{record['variant']} in {record['precision']}", text].append(record["format"])
    return [f"{name}, {' and '.join(names)}: {text}" for (name, text), names in formats.items()]
