/** Shows an answer: the verdict on novelty, a table of the heads, maps, and the row as JSON. */

import { drawMaps } from "./maps.js";

const PARTS = ["total", "aleatoric", "epistemic"];

/** Fills the page's elements by their ids: novelty, heads, maps, row. */
export function showAnswer(manifest, answer, row, picture) {
  byId("novelty").textContent = describeNovelty(row.novelty);
  byId("novelty").classList.toggle("unknown", Boolean(row.novelty?.unknown));
  byId("heads").replaceChildren(...manifest.heads.filter((head) => !head.per_position).map((head) => headRow(head, row)));
  const maps = manifest.heads.filter((head) => head.per_position);
  const drawn = maps.flatMap((head) => drawMaps(head, answer.heads[head.name], answer.shapes));
  byId("maps").replaceChildren(...[{ title: "the picture", canvas: paintPicture(picture) }, ...drawn].map(figure));
  byId("row").textContent = JSON.stringify(row, null, 1);
  byId("answer").hidden = false;
}

function describeNovelty(novelty) {
  if (!novelty) return "This bundle cannot tell unknown pictures.";
  const numbers = `novelty ${format(novelty.score)}, p-value ${format(novelty.p_value)}`;
  return novelty.unknown ? `Unknown: unlike the training images (${numbers}).` : `Like the training images (${numbers}).`;
}

function headRow(head, row) {
  const values = row.heads[head.name];
  const line = document.createElement("tr");
  const cells = [head.name, describe(head, values), ...PARTS.map((part) => describeNumbers(values[part]))];
  line.append(...cells.map((text, i) => Object.assign(document.createElement(i ? "td" : "th"), { textContent: text })));
  return line;
}

function describe(head, values) {
  const range = values.coverage ? ` (${Math.round(100 * values.coverage)} %: ${describeRange(values)})` : "";
  if (head.kind === "class") return `${values.label}, probability ${format(values.probability)}${range}`;
  if (head.kind === "binary") return values.label.join(", ") || "none";
  return `${describeNumbers(values.mean)} ${head.unit}${range}`;
}

function describeRange({ set, interval }) {
  return set ? set.join(", ") : [interval].flat(2).map(format).join(" to ");
}

function describeNumbers(value) {
  return value === undefined ? "" : [value].flat(9).map(format).join(", ");
}

function figure({ title, canvas }) {
  const element = document.createElement("figure");
  element.append(canvas, Object.assign(document.createElement("figcaption"), { textContent: title }));
  return element;
}

function paintPicture({ values, width, height }) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").putImageData(new ImageData(values, width, height), 0, 0);
  return canvas;
}

function format(number) {
  return Number(number.toPrecision(4)).toString();
}

function byId(id) {
  return document.getElementById(id);
}
