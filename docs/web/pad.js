/** A pad to draw on, of the size of the model's pictures: what is drawn is never resized. */

const ANY_SIDE = 256; // where the model takes any size

/** Returns `{ prepare, clear, toFile }` of a canvas; `onStroke` is called after each stroke. */
export function makePad(canvas, onStroke) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let last = null;

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.x) * canvas.width) / box.width, ((event.clientY - box.y) * canvas.height) / box.height];
  };
  const draw = (event) => {
    if (!last) return;
    context.beginPath();
    context.moveTo(...last);
    last = place(event);
    context.lineTo(...last);
    context.stroke();
  };

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    draw(event);
  });
  canvas.addEventListener("pointermove", draw);
  canvas.addEventListener("pointerup", () => {
    last = null;
    onStroke();
  });

  const clear = () => {
    context.fillStyle = "black";
    context.fillRect(0, 0, canvas.width, canvas.height);
    Object.assign(context, { strokeStyle: "white", lineCap: "round", lineJoin: "round" });
    context.lineWidth = Math.max(canvas.width, canvas.height) / 12;
  };
  const prepare = ([height, width]) => {
    canvas.width = width ?? ANY_SIDE;
    canvas.height = height ?? ANY_SIDE;
    clear();
  };
  const toFile = async () => new File([await new Promise((resolve) => canvas.toBlob(resolve))], "drawing.png");
  return { prepare, clear, toFile };
}
