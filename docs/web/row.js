/** Makes the row of an image, with the keys of a row of `probrt predict`; maps are left out. */

import { chooseThreshold, findIntervals, findSet } from "./conformal.js";
import { Fault } from "./fault.js";

const LEVEL = 0.01;
const ROUNDING = 1e-6; // p-values are float32

/** Returns `{ draws, novelty, heads }`. answer: of draws.js. */
export function makeRow(manifest, plan, answer) {
  const heads = {};
  for (const head of manifest.heads) {
    if (head.per_position) continue;
    const quantities = answer.heads[head.name];
    const row = {};
    for (const [name, values] of Object.entries(quantities)) {
      row[name] = nest(values, answer.shapes[`${head.name}.${name}`] ?? head.outputs[name]);
    }
    heads[head.name] = { ...row, ...summarize(head, quantities, chooseThreshold(manifest, head)) };
  }
  return { draws: plan.draws, novelty: judge(manifest, answer.novelty), heads };
}

function summarize(head, { mean, total, aleatoric }, threshold) {
  if (head.kind === "binary") return { label: head.labels.filter((_, i) => mean[i] >= 0.5) };
  if (head.kind === "real") {
    const ends = findIntervals(mean, total ?? aleatoric, threshold);
    return { interval: ends.length === 1 ? ends[0] : ends, coverage: threshold.coverage };
  }
  const best = mean.indexOf(Math.max(...mean));
  const row = { label: head.labels[best], probability: mean[best] };
  if (!threshold) return row;
  const set = findSet(mean, threshold).map((index) => head.labels[index]);
  return { ...row, set, coverage: threshold.coverage };
}

function judge(manifest, novelty) {
  if (!novelty || !manifest.novelty) return null;
  const level = Math.max(LEVEL, 1 / (manifest.novelty.images + 1));
  return { score: novelty.score, p_value: novelty.pValue, unknown: novelty.pValue <= level * (1 + ROUNDING) };
}

/** Returns nested lists of an array of a shape; a part of one entry is a number. */
function nest(values, shape) {
  if (values.some((value) => !Number.isFinite(value))) throw new Fault("the model's answer is not finite");
  if (values.length === 1) return values[0];
  if (shape.length < 2) return Array.from(values);
  const size = values.length / shape[0];
  return Array.from({ length: shape[0] }, (_, i) => nest(values.subarray(i * size, (i + 1) * size), shape.slice(1)));
}
