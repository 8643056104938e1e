// The reference: swagger-ui over /openapi.json. What it tries goes as whoever is signed in, unless a credential was
// entered for it.
"use strict";

const place = document.getElementById("reference");
const { model, keyUrl } = place.dataset;
const CREDENTIALS = ["authorization", "x-api-key", "api-key", "adminkey"];
const FOR_PROGRAMS = /^\/(v1|extras)\//, FOR_OPERATORS = /^\/admin\//;
let key = null;

// --- who asks ---

function isBare(headers) {
  return Object.keys(headers).every((name) => !CREDENTIALS.includes(name.toLowerCase()));
}

async function asVisitor(request) {
  if (request.loadSpec) return request;
  const { pathname } = new URL(request.url, window.location.href);
  request.credentials = "omit";
  if (!keyUrl || !isBare(request.headers)) return request;
  if (FOR_PROGRAMS.test(pathname)) {
    key ??= await freshKey(keyUrl);
    request.headers.authorization = `Bearer ${key}`;
  } else if (FOR_OPERATORS.test(pathname)) {
    request.credentials = "same-origin";
    request.headers["x-csrf-token"] = document.querySelector("meta[name=csrf-token]").content;
  }
  return request;
}

function checked(response) {
  if (response.status === 401) key = null;
  return response;
}

// The page's key is not for copying: the curl line says where one's own goes.
const shown = (found) => (state, path, method) => {
  const request = found(path, method);
  const stand = FOR_PROGRAMS.test(path) ? "YOUR_KEY" : FOR_OPERATORS.test(path) ? "ADMIN_KEY" : null;
  if (!request || !stand || !isBare(request.get("headers")?.toObject() ?? {})) return request;
  return request.setIn(["headers", "Authorization"], `Bearer ${stand}`);
};

// --- what is shown ---

// Of this gateway's addresses the one in use, of the ways to give a key one, and in examples a model that the visitor
// may call.
const localised = (update) => (spec) => {
  const { key, admin } = spec.components.securitySchemes;
  const components = { ...spec.components, securitySchemes: { key, admin } };
  const text = JSON.stringify({ ...spec, components, servers: [{ url: window.location.origin }] });
  return update(JSON.parse(text, (name, value) => {
    if (name === "security" && Array.isArray(value)) return value.filter((one) => "key" in one || "admin" in one);
    return value === "MODEL" && model ? model : value;
  }));
};

// Long lists are closed at first.
const opened = (isShown) => (state, thing, byDefault) =>
  isShown(thing, byDefault && !["operators", "machines"].includes([thing].flat().at(-1)));

// A link in a button is neither.
const unlinked = (_, { React }) => ({ text }) => React.createElement("span", null, text);

// A sound would be asked for once more, by GET, to be played; the answer that is there can be kept.
const kept = (Body, { React: { createElement, useMemo } }) => (props) => {
  const { content, contentType } = props;
  const isSound = content instanceof Blob && (contentType ?? "").startsWith("audio/");
  const href = useMemo(() => (isSound ? URL.createObjectURL(content) : null), [content, isSound]);
  if (!isSound) return createElement(Body, props);
  return createElement("a", { href, download: `speech.${contentType.split(/[/;]/)[1]}` }, "Download");
};

// The page itself says what swagger-ui's own layout would say at its head.
function Reference({ specSelectors, getComponent }, { React: { createElement } }) {
  const part = (name) => createElement(getComponent(name, true));
  const isThere = specSelectors.loadingStatus() !== "loading" && specSelectors.specStr();
  return createElement("div", { className: "swagger-ui" }, part("errors"),
    ...(isThere ? ["AuthorizeBtnContainer", "operations", "Models"].map(part) : []));
}

const ours = (system) => ({
  components: { Reference: (props) => Reference(props, system) },
  wrapComponents: { DeepLink: unlinked, responseBody: kept },
  statePlugins: {
    spec: { wrapActions: { updateJsonSpec: localised }, wrapSelectors: { requestFor: shown } },
    layout: { wrapSelectors: { isShown: opened } },
  },
});

// What swagger-ui does not say to those who cannot see it.
function named(field) {
  const { paramName, propertyName } = field.closest("tr").dataset;
  return paramName ?? propertyName ?? "Value";
}

const UNSAID = [
  ["textarea.body-param__text", "aria-label", () => "Request body"],
  ["select.examples-select-element", "aria-label", () => "Example"],
  [".parameters-col_description :is(input, select, textarea)", "aria-label", named],
  ["table.responses-table[id]", "aria-label", (one) => one.id.replaceAll("_", " ")],
  ["pre.microlight", "tabindex", () => "0"],
  [".close-modal", "aria-label", () => "Close"],
  [".modal-ux", "aria-label", () => "Authorize"],
];
new MutationObserver(() => {
  for (const [where, name, value] of UNSAID)
    for (const one of place.querySelectorAll(`:is(${where}):not([${name}])`)) one.setAttribute(name, value(one));
  const dialog = place.querySelector(".modal-ux:not([role])");
  dialog?.setAttribute("role", "dialog");
  dialog?.querySelector("input, button")?.focus();
}).observe(place, { childList: true, subtree: true });
place.addEventListener("keydown", (event) => {
  if (event.key === "Escape") place.querySelector(".close-modal")?.click();
});

const ofSystem = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => {
  const { classList, dataset } = document.documentElement;
  classList.toggle("dark-mode", dataset.theme === "auto" ? ofSystem.matches : dataset.theme === "dark");
};
ofSystem.addEventListener("change", follow);
follow();

SwaggerUIBundle({
  domNode: place,
  url: "/openapi.json",
  layout: "Reference",
  plugins: [ours],
  requestInterceptor: asVisitor,
  responseInterceptor: checked,
  showMutatedRequest: false,
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
  syntaxHighlight: false,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
});
