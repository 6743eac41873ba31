// Pictures of items that come next: loaded and decoded ahead, so that showing one is only a paint.

export function pictureUrl(itemId, size, frame) {
  const query = new URLSearchParams({item: itemId, size});
  if (frame !== undefined && frame !== null) query.set("frame", frame);
  return `/picture?${query}`;
}

// An image, and a promise of whether it can be shown. failed: once it is known that it cannot.
export function load(url, alt) {
  const image = new Image();
  image.decoding = "sync";
  image.draggable = false;
  image.alt = alt;
  image.src = url;
  const loaded = {image, failed: false};
  loaded.ready = image.decode().then(() => image.naturalWidth > 0, () => false).then((shown) => { loaded.failed = !shown; return shown; });
  return loaded;
}

// Called ahead, and again when an entry comes into sight: what did not load before may load now.
export function prepare(entry, view) {
  const prepareSmall = (one) => {
    if (isMissing(one.small)) one.small = load(pictureUrl(one.item_id, "small"), "");
    if (isMissing(one.strip)) one.strip = loadStrip(one.item_id);
  };
  if (view === "grid") return prepareSmall(entry);
  if (isMissing(entry.large)) entry.large = load(pictureUrl(entry.item_id, "large"), "The picture to decide on");
  if (isMissing(entry.strip)) entry.strip = loadStrip(entry.item_id);
  entry.strip.pictures ??= loadPictures(entry);
  entry.copies.forEach(prepareSmall);
}

const isMissing = (loaded) => !loaded || loaded.failed;

// found: a promise of the pictures of an item, also of one that only looks otherwise in another viewer; null where the
// server does not tell.
function loadStrip(itemId) {
  const strip = {failed: false};
  strip.found = frames(itemId).then((found) => { strip.failed = !found?.frames.length; return found; });
  return strip;
}

// A promise of that the pictures of a strip are on their way.
async function loadPictures({item_id: itemId, several, strip}) {
  const found = await strip.found;
  if (!found || (found.frames.length < 2 && !several)) return;
  for (const frame of found.frames) frame.small = load(pictureUrl(itemId, "small", frame.frame), "");
  Promise.all(found.frames.map((frame) => frame.small.ready)).then((ready) => { if (!ready.every(Boolean)) strip.failed = true; });
}

async function frames(itemId) {
  try {
    const response = await fetch(`/frames?${new URLSearchParams({item: itemId})}`);
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

// Why an item shows nothing, in words.
export async function problem(itemId) {
  try {
    const found = await (await fetch(`/frames?${new URLSearchParams({item: itemId})}`)).json();
    return found.error ? `No picture: ${found.error}` : "No picture";
  } catch {
    return "No picture: the server does not answer";
  }
}

const SVG = "http://www.w3.org/2000/svg";

export function boxesOver(boxes) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 1 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const box of boxes) {
    const rect = document.createElementNS(SVG, "rect");
    for (const name of ["x", "y", "width", "height"]) rect.setAttribute(name, box[name]);
    svg.append(rect);
  }
  return svg;
}
