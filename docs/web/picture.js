/** Turns a picture into what the graphs take, by the rules of runtime/images/decode.py. */

import { Fault } from "./fault.js";
import { resize } from "./resize.js";

const MAX_PIXELS = 40e6;

/** Refuses models that take no pictures. */
export function checkInput({ shape, colour }) {
  if (colour === "none" || shape.length !== 3) {
    const sides = shape.map((side) => side ?? "?").join(", ");
    throw new Fault(`this model takes arrays of shape [${sides}], not pictures; use probrt predict`);
  }
}

/** Returns the picture of a file, upright and on white: `{ values, width, height, channels: 4 }`. */
export async function decodePicture(file) {
  await refuseDeepGrey(file);
  // Without colour profiles, as Pillow reads a file; EXIF turns it.
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch(() => null);
  if (!bitmap) throw new Fault(`${file.name || "the file"}: no picture that this browser can decode`);
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) throw new Fault(`${file.name}: more than 40 megapixels`);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { values: context.getImageData(0, 0, width, height).data, width, height, channels: 4 };
}

/** A browser shows 8 bits of 16-bit grey and rounds them in its own way. */
async function refuseDeepGrey(file) {
  const head = new Uint8Array(await file.slice(0, 26).arrayBuffer());
  const isPng = [0x89, 0x50, 0x4e, 0x47].every((byte, index) => head[index] === byte);
  if (isPng && head[24] === 16 && head[25] === 0) {
    throw new Fault(`${file.name}: 16-bit grey, of which browsers show 8 bits; use probrt predict`);
  }
}

/** Returns `{ values: Float32Array [height, width, channels], shape }` for a picture of four channels. */
export function fitPicture(picture, input) {
  const coloured = input.colour === "grey" ? toGrey(picture) : toRgb(picture);
  const [height, width] = [input.shape[0] ?? picture.height, input.shape[1] ?? picture.width];
  const isOfSize = width === picture.width && height === picture.height;
  if (!isOfSize && input.resize === "none") {
    const is = `${picture.width} x ${picture.height} pixels`;
    throw new Fault(`${is}; the model takes ${width} x ${height} and does not resize`);
  }
  const fitted = resize(coloured, width, height);
  if (fitted.channels !== input.shape[2]) throw new Fault(`the model takes ${input.shape[2]} channels`);
  const [low, high] = input.range ?? [-Infinity, Infinity];
  const factor = low === 0 && high === 65535 ? 257 : 1;
  const values = Float32Array.from(fitted.values, (value) => value * factor);
  if (values.some((value) => value < low || value > high)) {
    throw new Fault(`the picture has values outside of ${low} to ${high}, which the model takes`);
  }
  return { values, shape: [height, width, fitted.channels] };
}

/** The luma of ITU-R 601 in 16-bit fixed point. */
function toGrey({ values, width, height }) {
  const grey = new Uint8Array(width * height);
  for (let i = 0; i < grey.length; i++) {
    const [red, green, blue] = [values[4 * i], values[4 * i + 1], values[4 * i + 2]];
    grey[i] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
  }
  return { values: grey, width, height, channels: 1 };
}

function toRgb({ values, width, height }) {
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) rgb.set(values.subarray(4 * i, 4 * i + 3), 3 * i);
  return { values: rgb, width, height, channels: 3 };
}
