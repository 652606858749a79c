/**
 * Combines the answers of chunks of draws in float64, as runtime/predict/combine.py does.
 *
 * Numbers: the law of total variance. Classes and flags: the total is the entropy of the combined mean, and the
 * epistemic part is what the mean entropy leaves of it. Other outputs of a head are averages.
 */

/** Returns a head's quantities over all draws, each a Float64Array, by name. chunks: outputs; counts: their draws. */
export function combineHead(head, chunks, counts) {
  const draws = counts.reduce((a, b) => a + b, 0);
  const average = (name) =>
    weigh(chunks.map((chunk) => chunk[`${head.name}.${name}`]), counts.map((count) => count / draws));
  const kept = Object.keys(head.outputs).filter((name) => name !== "total" && name !== "epistemic");
  const averages = Object.fromEntries(kept.map((name) => [name, average(name)]));
  const split = head.kind === "real" ? splitVariance(head, averages, chunks, counts) : splitEntropy(head, averages);
  return { mean: averages.mean, total: split.total, aleatoric: averages.aleatoric, epistemic: split.epistemic, ...averages };
}

/** Returns the quantities of one pass at the posterior mean, which has no epistemic part. */
export function readMean(head, outputs) {
  const names = Object.keys(head.outputs).filter((name) => `${head.name}.${name}` in outputs);
  return Object.fromEntries(names.map((name) => [name, Float64Array.from(outputs[`${head.name}.${name}`])]));
}

function splitVariance(head, { mean, aleatoric }, chunks, counts) {
  const draws = counts.reduce((a, b) => a + b, 0);
  const epistemic = mean.map((_, i) =>
    chunks.reduce((sum, chunk, k) => {
      const within = Math.max(chunk[`${head.name}.epistemic`][i], 0);
      const between = (chunk[`${head.name}.mean`][i] - mean[i]) ** 2;
      return sum + ((within + between) * counts[k]) / draws;
    }, 0),
  );
  return { total: epistemic.map((value, i) => value + aleatoric[i]), epistemic };
}

function splitEntropy(head, { mean, aleatoric }) {
  const width = mean.length / aleatoric.length; // classes per position; 1 where each entry is a flag
  const total = aleatoric.map((_, i) => {
    if (head.kind === "binary") return entropyTerm(mean[i]) + entropyTerm(1 - clip(mean[i]));
    return mean.subarray(i * width, (i + 1) * width).reduce((sum, p) => sum + entropyTerm(p), 0);
  });
  return { total, epistemic: total.map((value, i) => Math.max(value - aleatoric[i], 0)) };
}

function weigh(arrays, shares) {
  return Float64Array.from(arrays[0], (_, i) => arrays.reduce((sum, values, k) => sum + values[i] * shares[k], 0));
}

function clip(p) {
  return Math.min(Math.max(p, 0), 1);
}

/** The term of one probability in an entropy, in nats. */
function entropyTerm(p) {
  return clip(p) > 0 ? -clip(p) * Math.log(clip(p)) : 0;
}
