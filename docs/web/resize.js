/**
 * Bilinear resizing with antialiasing, in the integer arithmetic of Pillow's 8-bit pictures: the same bytes.
 *
 * Each output pixel is a weighted mean of the input pixels below a triangle that is as wide as the scale, along the rows
 * and along the columns, rounded to bytes after each. Pillow 13 does the columns first where the height shrinks by more
 * than twice as many pixels as the width; Pillow before that did the rows first. A direction that keeps its size is left
 * alone.
 */

const BITS = 22; // of a weight behind the point: a sum of weights times a byte stays below 2^31

/** Returns a picture of another size: `{ values, width, height, channels }`, values [height, width, channels]. */
export function resize(picture, newWidth, newHeight) {
  const [fewerRows, fewerColumns] = [picture.height - newHeight, picture.width - newWidth];
  const isColumnsFirst = fewerRows > 0 && fewerRows > 2 * fewerColumns;
  return isColumnsFirst
    ? alongRows(alongColumns(picture, newHeight), newWidth)
    : alongColumns(alongRows(picture, newWidth), newHeight);
}

function alongRows(picture, newWidth) {
  const { values, width, height, channels } = picture;
  if (newWidth === width) return picture;
  const result = new Uint8Array(height * newWidth * channels);
  const taps = makeTaps(width, newWidth);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < newWidth; x++) {
      for (let c = 0; c < channels; c++) {
        result[(y * newWidth + x) * channels + c] = sum(values, y * width * channels + c, channels, taps[x]);
      }
    }
  }
  return { values: result, width: newWidth, height, channels };
}

function alongColumns(picture, newHeight) {
  const { values, width, height, channels } = picture;
  if (newHeight === height) return picture;
  const row = width * channels;
  const result = new Uint8Array(newHeight * row);
  const taps = makeTaps(height, newHeight);
  for (let y = 0; y < newHeight; y++) {
    for (let i = 0; i < row; i++) result[y * row + i] = sum(values, i, row, taps[y]);
  }
  return { values: result, width, height: newHeight, channels };
}

/** Returns the weights of each output pixel, and the input pixel of the first. */
function makeTaps(size, newSize) {
  const scale = size / newSize;
  const reach = Math.max(scale, 1);
  return Array.from({ length: newSize }, (_, index) => {
    const centre = (index + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const end = Math.min(Math.trunc(centre + reach + 0.5), size);
    const heights = Array.from({ length: end - first }, (_, i) =>
      Math.max(1 - Math.abs((i + first - centre + 0.5) * (1 / reach)), 0),
    );
    const total = heights.reduce((a, b) => a + b, 0);
    return { first, weights: heights.map((value) => Math.trunc(0.5 + (value / total) * 2 ** BITS)) };
  });
}

function sum(values, offset, step, { first, weights }) {
  let total = 2 ** (BITS - 1);
  for (let i = 0; i < weights.length; i++) total += values[offset + (first + i) * step] * weights[i];
  return Math.min(total >> BITS, 255);
}
