/** Opens a bundle: reads probrt.json and checks each file against it, as `probrt predict` does. */

import { Fault } from "./fault.js";

const MANIFEST = "probrt.json";
const UNSIGNED = "0".repeat(64); // what stands for the digest of the manifest while it is computed

/** Returns a function that reads files of a chosen folder by name; of several versions the newest is taken. */
export function readFolder(files) {
  const version = (file) => Number(file.webkitRelativePath.split("/").at(-2)) || 0;
  const manifests = [...files].filter((file) => file.name === MANIFEST).sort((a, b) => version(b) - version(a));
  if (!manifests.length) throw new Fault("no probrt.json in this folder; choose artifacts/<model>/<version>");
  const folder = manifests[0].webkitRelativePath.slice(0, -MANIFEST.length);
  const byPath = new Map([...files].map((file) => [file.webkitRelativePath, file]));
  return async (name) => {
    const file = byPath.get(folder + name);
    if (!file) throw new Fault(`${name}: missing in the folder; copy the whole bundle`);
    return file.arrayBuffer();
  };
}

/** Returns a function that reads files by name below an address of the server that the page comes from. */
export function readAddress(address) {
  const folder = new URL(address.endsWith("/") ? address : `${address}/`, document.baseURI);
  return async (name) => {
    const url = new URL(name, folder);
    const answer = await fetch(url).catch(() => null);
    if (!answer) throw new Fault(`${url}: no answer; bundles must come from the server of this page`);
    if (!answer.ok) throw new Fault(`${url}: the server answers ${answer.status}; copy the whole bundle there`);
    return answer.arrayBuffer();
  };
}

/** Returns `{ manifest, read }`: the manifest, and a function that returns the checked bytes of a listed file. */
export async function openBundle(readFile) {
  const text = new TextDecoder().decode(await readFile(MANIFEST));
  const manifest = parseManifest(text);
  if (manifest.sha256) {
    await checkDigest(MANIFEST, new TextEncoder().encode(text.replace(manifest.sha256, UNSIGNED)), manifest.sha256);
  }
  const read = async (file) => {
    const bytes = await readFile(file.path);
    if (bytes.byteLength !== file.bytes) throw changed(file.path);
    await checkDigest(file.path, bytes, file.sha256);
    return bytes;
  };
  return { manifest, read };
}

function parseManifest(text) {
  let manifest;
  try {
    manifest = JSON.parse(text);
  } catch {
    throw new Fault("probrt.json: not JSON; export the bundle again");
  }
  if (manifest?.format !== 1) throw new Fault(`probrt.json: format ${manifest?.format}; this page reads format 1`);
  for (const key of ["model", "input", "heads", "files"]) {
    if (!manifest[key]) throw new Fault(`probrt.json: no ${key}; export the bundle again`);
  }
  for (const head of manifest.heads) head.kind ??= findKind(head);
  return manifest;
}

/** Returns the kind of a head of an older bundle: a class head has one axis more in `mean` than in `aleatoric`. */
function findKind(head) {
  if (head.combine === "variance") return "real";
  return head.outputs.mean.length > head.outputs.aleatoric.length ? "class" : "binary";
}

/** Browsers compute digests on https and on localhost only; elsewhere the bytes are taken as they are. */
async function checkDigest(name, bytes, expected) {
  if (!globalThis.crypto?.subtle) return;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== expected) throw changed(name);
}

function changed(name) {
  return new Fault(`${name}: not the bytes that probrt.json lists; copy the bundle again`);
}
