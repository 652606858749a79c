/** Sets and intervals by the thresholds of probrt.json, as runtime/calibration/conformal.py makes them. */

const COVERAGE = 0.9;
const NORMAL = { coverage: COVERAGE, method: "scaled", threshold: 1.6448536269514722 }; // its central interval

/** Returns the threshold of a head for a coverage of 0.9, or its first one; null if it has none. */
export function chooseThreshold(manifest, head) {
  const records = manifest.calibration?.find((record) => record.head === head.name)?.conformal ?? [];
  const chosen = records.find((record) => Math.abs(record.coverage - COVERAGE) < 1e-9) ?? records[0];
  return chosen ?? (head.kind === "real" ? NORMAL : null);
}

/** Returns the class numbers of a set, the likeliest first. */
export function findSet(probabilities, { method, threshold, penalty = 0, free_ranks: free = 0 }) {
  const order = Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a] || a - b);
  let likelier = 0;
  const scores = order.map((index, place) => {
    const score = likelier + penalty * Math.max(0, place + 1 - free);
    likelier += probabilities[index];
    return score;
  });
  const isInside = (index, place) =>
    method === "lac" ? 1 - probabilities[index] <= threshold : scores[place] < threshold;
  return order.slice(0, Math.max(order.filter(isInside).length, 1));
}

/** Returns [low, high] of each entry. */
export function findIntervals(mean, variance, { method, threshold }) {
  return Array.from(mean, (value, i) => {
    const half = method === "scaled" ? threshold * Math.sqrt(variance[i]) : threshold;
    return [value - half, value + half];
  });
}
