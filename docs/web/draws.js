/** Runs the ONNX files of a bundle in this browser: ONNX Runtime Web, WebAssembly, one thread. */

import { combineHead, readMean } from "./combine.js";
import { Fault } from "./fault.js";

const LIBRARY = new URL("./onnxruntime-web/", import.meta.url);
let library = null;

/** Returns the numbers of draws that the ONNX files give, each with its files; 0 draws is the posterior mean. */
export function listPlans(manifest) {
  const files = manifest.files.filter((file) => file.format === "onnx" && file.precision === "float32");
  const chunks = files.filter((file) => file.variant === "draws").sort((a, b) => a.draws[0] - b.draws[0]);
  const plans = [];
  for (const [index, chunk] of chunks.entries()) {
    plans.push({ draws: (plans.at(-1)?.draws ?? 0) + chunk.draws[1], files: chunks.slice(0, index + 1) });
  }
  const mean = files.find((file) => file.variant === "mean");
  if (mean) plans.push({ draws: 0, files: [mean] });
  if (!plans.length) throw new Fault("the bundle has no float32 ONNX files; export it with --formats onnx");
  return plans;
}

/** Returns `{ heads, shapes, novelty }` for one image; `session` of a file is made at its first use and kept. */
export async function answer(bundle, plan, image, sessions) {
  const chunks = [];
  let shapes = {};
  for (const file of plan.files) {
    if (!sessions.has(file.path)) sessions.set(file.path, await makeSession(file.path, await bundle.read(file)));
    const outputs = await run(file.path, sessions.get(file.path), image);
    shapes = Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, tensor.dims.slice(1)]));
    chunks.push(Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, tensor.data])));
  }
  const counts = plan.files.map((file) => file.draws?.[1] ?? 0);
  const heads = {};
  for (const head of bundle.manifest.heads) {
    checkOutputs(head, chunks, plan);
    heads[head.name] = plan.draws ? combineHead(head, chunks, counts) : readMean(head, chunks[0]);
  }
  const [score, pValue] = ["novelty.score", "novelty.p_value"].map((name) => chunks[0][name]?.[0]);
  return { heads, shapes, novelty: score === undefined ? null : { score, pValue } };
}

async function load() {
  if (library) return library;
  try {
    library = await import(new URL("ort.wasm.min.mjs", LIBRARY));
  } catch {
    throw new Fault("onnxruntime-web is missing beside this page; build the page with make web");
  }
  library.env.wasm.wasmPaths = LIBRARY.href;
  library.env.wasm.numThreads = 1; // more need headers that many servers do not send
  library.env.logLevel = "error";
  return library;
}

async function makeSession(path, bytes) {
  const ort = await load();
  try {
    return await ort.InferenceSession.create(new Uint8Array(bytes));
  } catch (error) {
    throw new Fault(`${path}: no graph that onnxruntime-web can load: ${firstLine(error)}`);
  }
}

async function run(path, session, image) {
  const ort = await load();
  try {
    return await session.run({ images: new ort.Tensor("float32", image.values, [1, ...image.shape]) });
  } catch (error) {
    throw new Fault(`${path}: cannot compute this image: ${firstLine(error)}`);
  }
}

function checkOutputs(head, chunks, plan) {
  const names = plan.draws ? Object.keys(head.outputs).filter((name) => name !== "total") : ["mean", "aleatoric"];
  for (const [index, chunk] of chunks.entries()) {
    const missing = names.find((name) => !chunk[`${head.name}.${name}`]);
    if (missing) throw new Fault(`${plan.files[index].path}: no output ${head.name}.${missing}; export it again`);
  }
}

function firstLine(error) {
  return String(error?.message ?? error).split("\n")[0].slice(0, 200);
}
