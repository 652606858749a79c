/** Draws the answers of heads per position: the mask, and how uncertain each position is. */

const COLOURS = ["#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];

/** Returns `{ title, canvas }` for each map of a head: per label what it says, and the total uncertainty. */
export function drawMaps(head, quantities, shapes) {
  const [height, width] = shapes[`${head.name}.mean`];
  const { mean, total, aleatoric } = quantities;
  const uncertainty = total ?? aleatoric;
  const maps = [];
  const add = (title, colour) => maps.push({ title, canvas: paint(width, height, colour) });
  if (head.kind === "class") {
    const best = findBest(mean, head.labels.length);
    add(`${head.name}: ${head.labels.map((label, i) => `${colourName(i)} ${label}`).join(", ")}`, (i) => colourOf(best[i]));
    add(`${head.name}: total uncertainty`, greyScale(uncertainty, 1, 0, 0, Math.log(head.labels.length)));
    return maps;
  }
  const entries = mean.length / (width * height);
  for (let entry = 0; entry < entries; entry++) {
    const name = `${head.name} ${head.labels[entry] ?? entry}`;
    if (head.kind === "binary") {
      add(`${name}: probability`, greyScale(mean, entries, entry, 0, 1));
      add(`${name}: mask, probability of at least 0.5`, (i) => (mean[i * entries + entry] >= 0.5 ? "#ffffff" : "#000000"));
      add(`${name}: total uncertainty`, greyScale(uncertainty, entries, entry, 0, Math.log(2)));
    } else {
      add(`${name}: mean, lowest black`, greyScale(mean, entries, entry, ...findEnds(mean, entries, entry)));
      add(`${name}: total variance, lowest black`, greyScale(uncertainty, entries, entry, ...findEnds(uncertainty, entries, entry)));
    }
  }
  return maps;
}

/** Returns the likeliest class at each position. */
export function findBest(mean, classes) {
  return Uint16Array.from({ length: mean.length / classes }, (_, i) => {
    const values = mean.subarray(i * classes, (i + 1) * classes);
    return values.indexOf(Math.max(...values));
  });
}

function paint(width, height, colour) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  for (let i = 0; i < width * height; i++) {
    context.fillStyle = colour(i);
    context.fillRect(i % width, Math.floor(i / width), 1, 1);
  }
  return canvas;
}

function greyScale(values, entries, entry, low, high) {
  return (i) => {
    const share = Math.min(Math.max((values[i * entries + entry] - low) / (high - low || 1), 0), 1);
    const grey = Math.round(255 * share);
    return `rgb(${grey},${grey},${grey})`;
  };
}

function findEnds(values, entries, entry) {
  let [low, high] = [Infinity, -Infinity];
  for (let i = entry; i < values.length; i += entries) {
    low = Math.min(low, values[i]);
    high = Math.max(high, values[i]);
  }
  return [low, high];
}

function colourOf(index) {
  return COLOURS[index] ?? `hsl(${(index * 137) % 360},70%,50%)`;
}

function colourName(index) {
  return ["black", "orange", "light blue", "green", "yellow", "blue", "red", "pink"][index] ?? colourOf(index);
}
