// Pictures of items that come next: loaded and decoded ahead, so that showing one is only a paint.

export function pictureUrl(itemId, size, frame) {
  const query = new URLSearchParams({item: itemId, size});
  if (frame !== undefined && frame !== null) query.set("frame", frame);
  return `/picture?${query}`;
}

// An image, and a promise of whether it can be shown.
export function load(url, alt) {
  const image = new Image();
  image.decoding = "sync";
  image.draggable = false;
  image.alt = alt;
  image.src = url;
  const ready = image.decode().then(() => image.naturalWidth > 0, () => false);
  return {image, ready};
}

export function prepare(entry, view) {
  if (view === "item" && !entry.large) {
    entry.large = load(pictureUrl(entry.item_id, "large"), "The picture to decide on");
    entry.frames = entry.several ? frames(entry.item_id) : null;
    entry.small ??= null;
    for (const copy of entry.copies) copy.small ??= load(pictureUrl(copy.item_id, "small"), "");
  }
  if (view === "grid" && !entry.small) entry.small = load(pictureUrl(entry.item_id, "small"), "");
}

async function frames(itemId) {
  try {
    const response = await fetch(`/frames?${new URLSearchParams({item: itemId})}`);
    if (!response.ok) return null;
    const found = await response.json();
    for (const frame of found.frames) frame.small = load(pictureUrl(itemId, "small", frame.frame), "");
    return found;
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
