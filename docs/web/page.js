/** Connects the page's controls. At most one bundle and one picture are open; a change of either asks for an answer. */

import { openBundle, readAddress, readFolder } from "./bundle.js";
import { answer, listPlans } from "./draws.js";
import { Fault } from "./fault.js";
import { makePad } from "./pad.js";
import { checkInput, decodePicture, fitPicture } from "./picture.js";
import { makeRow } from "./row.js";
import { showAnswer } from "./show.js";

const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
const pad = makePad(element.pad, () => attempt(async () => takePicture(await pad.toFile())));
const sessions = new Map();
let bundle = null;
let plans = [];
let picture = null;
let last = Promise.resolve();

/** Runs one action after the other, and shows a fault as a line. */
function attempt(action) {
  last = last.then(async () => {
    say("…");
    try {
      await action();
    } catch (error) {
      element.answer.hidden = true;
      say(error instanceof Fault ? error.message : `the page failed: ${error}`, true);
    }
  });
  return last;
}

function say(text, isFault = false) {
  element.status.textContent = text;
  element.status.classList.toggle("fault", isFault);
}

async function takeBundle(readFile) {
  bundle = null;
  for (const session of sessions.values()) await session.release();
  sessions.clear();
  const opened = await openBundle(readFile);
  checkInput(opened.manifest.input);
  plans = listPlans(opened.manifest);
  bundle = opened;
  const usual = opened.manifest.posterior?.samples ?? 0;
  const chosen = plans.findLastIndex((plan) => plan.draws && plan.draws <= usual);
  element.draws.replaceChildren(...plans.map((plan, i) => new Option(plan.draws || "posterior mean", i)));
  element.draws.value = Math.max(chosen, 0);
  pad.prepare(opened.manifest.input.shape);
  await update();
}

async function takePicture(file) {
  picture = null;
  picture = await decodePicture(file);
  await update();
}

/** Answers for the picture, once there are both. */
async function update() {
  if (!bundle) return say("choose a bundle");
  const { model } = bundle.manifest;
  if (!picture) return say(`${model.name} ${model.version}: draw or choose a picture`);
  const plan = plans[Number(element.draws.value)];
  const image = fitPicture(picture, bundle.manifest.input);
  const start = performance.now();
  const found = await answer(bundle, plan, image, sessions);
  const row = makeRow(bundle.manifest, plan, found);
  showAnswer(bundle.manifest, found, row, picture);
  globalThis.probrt = { row, heads: found.heads }; // for the console of the browser
  say(`${model.name} ${model.version}: answered in ${Math.round(performance.now() - start)} ms`);
}

element.folder.addEventListener("change", () => attempt(() => takeBundle(readFolder(element.folder.files))));
element.open.addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(() => takeBundle(readAddress(element.address.value)));
});
element.file.addEventListener("change", () => {
  const [file] = element.file.files;
  if (file) attempt(() => takePicture(file));
});
element.draws.addEventListener("change", () => attempt(update));
element.clear.addEventListener("click", () => pad.clear());
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  attempt(async () => {
    if (!file) throw new Fault("that is no file; drop a picture");
    await takePicture(file);
  });
});

const address = new URLSearchParams(location.search).get("bundle");
if (address) {
  element.address.value = address;
  attempt(() => takeBundle(readAddress(address)));
} else {
  say("choose a bundle");
}
