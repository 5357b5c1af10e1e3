// @ts-check
/** A question as a command or a program that asks the same. */

/** @typedef {{name: string, url: string}} PictureName */
/**
 * `base`: the API's address with `/v1`; `keyed`: this server wants a key, which is never written down.
 * @typedef {{base: string, model: string, question: string, pictures: readonly PictureName[],
 *   kind: "ask" | "review", keyed: boolean}} Call
 */

const KEY = "FOREBAY_API_KEY";

/**
 * @param {Call} call
 * @returns {string} a command for a POSIX shell, in the folder of the pictures
 */
export function asCurl(call) {
  const path = call.kind === "review" ? "multimodal/inference" : "chat/completions";
  const key = call.keyed ? ` \\\n  -H "Authorization: Bearer $${KEY}"` : "";
  return `curl -sS ${quoted(`${call.base}/${path}`)}${key} \\
  -H 'Content-Type: application/json' --data-binary @- <<JSON
${JSON.stringify(bodyOf(call, shellPicture), null, 2).replace(/[\\$`]/g, "\\$&").replaceAll(FILE, fileInShell)}
JSON
`;
}

/** In a body, what stands for the base64 of a file; no text holds it by chance. */
const FILE = /\u{F0000}([^\u{F0001}]*)\u{F0001}/gu;

/** @param {PictureName} picture */
function shellPicture({ name, url }) {
  return url || `data:${typeOf(name)};base64,\u{F0000}${encodeURIComponent(name)}\u{F0001}`;
}

/**
 * @param {string} _
 * @param {string} name
 */
function fileInShell(_, name) {
  return `$(base64 < ${quoted(decodeURIComponent(name))} | tr -d '\\n')`;
}

/**
 * @param {Call} call
 * @param {(picture: PictureName) => string} address
 */
function bodyOf({ model, question, pictures, kind }, address) {
  if (kind === "review") {
    const [picture] = pictures;
    return { model, prompt: question, ...(picture ? { image: address(picture) } : {}), template: "review" };
  }
  const text = { type: "text", text: question };
  const parts = pictures.map((picture) => ({ type: "image_url", image_url: { url: address(picture) } }));
  return { model, messages: [{ role: "user", content: parts.length ? [...parts, text] : question }] };
}

/** @param {string} text */
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/**
 * @param {Call} call
 * @returns {string} a program for the `openai` package; a review is plain HTTP, by what comes with it
 */
export function asPython(call) {
  const files = call.pictures.some(({ url }) => !url);
  const imports = [...(files ? ["import base64"] : []), "import os", ...(files ? ["from pathlib import Path"] : [])];
  const key = `os.environ.get("${KEY}", "none")`;
  const body = call.kind === "review" ? pythonReview(call, key) : pythonAsk(call, key);
  const library = call.kind === "review" ? "import httpx" : "from openai import OpenAI";
  return `${imports.join("\n")}\n\n${library}\n${files ? PYTHON_PICTURE : ""}\n\n${body}`;
}

const PYTHON_PICTURE = `

def picture(name, kind):
    content = base64.b64encode(Path(name).read_bytes()).decode()
    return f"data:{kind};base64,{content}"
`;

/**
 * @param {Call} call
 * @param {string} key
 */
function pythonAsk(call, key) {
  const { model, messages } = /** @type {any} */ (bodyOf(call, pythonPicture));
  return `client = OpenAI(base_url=${JSON.stringify(call.base)}, api_key=${key})
stream = client.chat.completions.create(
    model=${JSON.stringify(model)},
    messages=${inPython(messages)},
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
`;
}

/**
 * @param {Call} call
 * @param {string} key
 */
function pythonReview(call, key) {
  return `answer = httpx.post(
    ${JSON.stringify(`${call.base}/multimodal/inference`)},
    json=${inPython(bodyOf(call, pythonPicture))},
    headers={"Authorization": "Bearer " + ${key}},
    timeout=600,
)
print(answer.raise_for_status().json())
`;
}

/** @param {PictureName} picture */
function pythonPicture({ name, url }) {
  return url || `\u{F0000}${encodeURIComponent(name)}\u{F0001}`;
}

/** @param {unknown} value of strings, lists and objects: its JSON is Python too */
function inPython(value) {
  const written = JSON.stringify(value, null, 4).replaceAll("\n", "\n    ");
  return written.replaceAll(/"\u{F0000}([^\u{F0001}]*)\u{F0001}"/gu, (_, name) => {
    const plain = decodeURIComponent(name);
    return `picture(${JSON.stringify(plain)}, ${JSON.stringify(typeOf(plain))})`;
  });
}

const TYPES = { png: "image/png", webp: "image/webp", gif: "image/gif", bmp: "image/bmp" };

/** @param {string} name */
function typeOf(name) {
  const ending = name.toLowerCase().split(".").pop() ?? "";
  return Object.hasOwn(TYPES, ending) ? TYPES[/** @type {keyof typeof TYPES} */ (ending)] : "image/jpeg";
}
