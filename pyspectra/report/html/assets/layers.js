/* The table of layers: sort, filter, search; and the sheet that shows one of them. */
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const table = byId("layers");
  const body = table.tBodies[0];
  const rows = [...body.rows]; // in the order of the model
  const indexOf = Object.fromEntries(data.columns.map(([name], i) => [name, i]));
  const valueOf = (i, column) => data.layers[i].v[indexOf[column]];
  const numberOf = (row) => Number(row.id.slice(1));

  const isPressed = (button) => button.getAttribute("aria-pressed") === "true";
  const press = (button, down) => button.setAttribute("aria-pressed", String(down));

  // --- sort -------------------------------------------------------------------------------------

  let order = { column: null, down: false };

  /** Compare two values: numbers, or text as people count; what is missing comes last. */
  function compare(a, b, down) {
    const missing = (v) => v === null || v === undefined || v === "";
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    const sign = down ? -1 : 1;
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), undefined, { numeric: true });
  }

  function sort(column) {
    if (order.column !== column) order = { column, down: false };
    else if (!order.down) order = { column, down: true };
    else order = { column: null, down: false };
    const sorted = [...rows];
    if (order.column !== null) {
      sorted.sort((a, b) => compare(
        valueOf(numberOf(a), column), valueOf(numberOf(b), column), order.down)
        || numberOf(a) - numberOf(b));
    }
    body.append(...sorted);
    for (const head of table.tHead.rows[0].cells) {
      const own = head.dataset.c === order.column;
      if (own) head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(head.dataset.c));
  }

  // --- search and filter ------------------------------------------------------------------------

  const search = byId("search");
  const chips = [...document.querySelectorAll(".chips .chip")];
  const names = data.layers.map((layer) => layer.t.toLowerCase());
  const facets = new Map(); // column -> the select that filters by it

  for (const column of ["kind", "role", "block"]) {
    if (!(column in indexOf)) continue;
    const values = [...new Set(data.layers.map((_, i) => valueOf(i, column)))]
      .filter((value) => value !== null && value !== "");
    if (values.length < 2 || values.length > 200) continue;
    values.sort((a, b) => compare(a, b, false));
    const select = document.createElement("select");
    select.setAttribute("aria-label", `Show only one ${column}`);
    select.append(new Option(`any ${column}`, ""), ...values.map((v) => new Option(v, v)));
    select.addEventListener("change", filter);
    byId("facets").append(select);
    facets.set(column, select);
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const pressed = new Set(chips.filter(isPressed).map((chip) => chip.dataset.k));
    let count = 0;
    for (const row of rows) {
      const i = numberOf(row);
      const fits = words.every((word) => names[i].includes(word))
        && (!pressed.size || pressed.has(row.dataset.k))
        && [...facets].every(([column, select]) => (
          !select.value || String(valueOf(i, column)) === select.value));
      row.hidden = !fits;
      count += fits;
    }
    byId("count").textContent = count === rows.length
      ? `${count} layers` : `${count} of ${rows.length} layers`;
  }

  search.addEventListener("input", filter);
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      press(chip, !isPressed(chip));
      filter();
    });
  }

  // --- the sheet --------------------------------------------------------------------------------

  const sheet = byId("sheet");
  const chartElement = byId("chart");
  let open = null; // number of the layer that is shown
  let view = "tail";
  let chart = null;

  const shown = () => [...body.rows].filter((row) => !row.hidden).map(numberOf);

  function element(tag, content, className) {
    const made = document.createElement(tag);
    made.textContent = content;
    if (className) made.className = className;
    return made;
  }

  function show(i) {
    open = i;
    const layer = data.layers[i];
    byId("sheet-title").textContent = layer.t;
    const sign = byId(`L${i}`).querySelector("svg.sign");
    byId("sheet-kind").replaceChildren(...(sign ? [sign.cloneNode(true)] : []), layer.k);
    byId("sheet-words").replaceChildren(...layer.w.map((sentence) => element("p", sentence)));
    byId("sheet-numbers").replaceChildren(...data.columns.map(([name, help], c) => numberRow(
      name, help, layer.v[c])));
    const places = shown();
    const at = places.indexOf(i);
    byId("place").textContent = at < 0 ? "" : `${at + 1} of ${places.length}`;
    byId("before").disabled = at <= 0;
    byId("after").disabled = at < 0 || at === places.length - 1;
    if (!sheet.open) sheet.showModal();
    sheet.scrollTop = 0;
    draw();
    byId("sheet-title").focus({ preventScroll: true });
    remember(`#L${i}`);
  }

  function numberRow(name, help, value) {
    const row = document.createElement("tr");
    const head = element("th", name.replaceAll("_", " "));
    head.scope = "row";
    head.append(element("span", help));
    row.append(head, element("td", value === null || value === "" ? "–" : value));
    return row;
  }

  function draw() {
    if (chart) chart.destroy();
    chart = null;
    const layer = data.layers[open];
    const present = layer.s.map((curve, i) => [curve, i]).filter(([curve]) => curve);
    const curves = present.map(([curve]) => curve);
    byId("readout").textContent = "";
    byId("chart-key").replaceChildren();
    document.querySelector(".views").hidden = chartElement.hidden = !curves.length;
    if (!curves.length) return;
    chart = spectrum.draw(chartElement, curves, data.ranks, view,
      (words) => { byId("readout").textContent = words; });
    const canvas = chartElement.querySelector("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Spectrum of ${layer.t}. ${layer.w.join(" ")}`);
    byId("chart-key").append(...present.flatMap(([curve, i]) => keyOf(curve, i, spectrum.alone(curves))));
  }

  function keyOf(curve, i, alone) {
    const name = data.series[i] ? `${data.series[i]}: ` : "";
    const item = (words, colour, dash) => {
      const made = document.createElement("li");
      made.append(element("span", "", `swatch ${colour}${dash ? " dash" : ""}`),
        element("span", words, "said"));
      return made;
    };
    const items = [item(`${name}${curve.n} eigenvalues`, `c${i}`, false)];
    if (curve.law) items.push(item(`${name}fitted law`, alone ? "c3" : `c${i}`, true));
    return items;
  }

  function step(by) {
    const places = shown();
    const next = places[places.indexOf(open) + by];
    if (next !== undefined) show(next);
  }

  /** Keep the open layer in the address, so that a link leads to it. */
  function remember(hash) {
    try {
      history.replaceState(null, "", hash || location.pathname + location.search);
    } catch { /* a viewer that has no addresses */ }
  }

  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (!row || getSelection().toString()) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    show(numberOf(row));
  });
  for (const sign of document.querySelectorAll(".pair svg [data-i]")) {
    sign.addEventListener("click", () => show(Number(sign.dataset.i)));
  }
  byId("close").addEventListener("click", () => sheet.close());
  byId("before").addEventListener("click", () => step(-1));
  byId("after").addEventListener("click", () => step(1));
  sheet.addEventListener("click", (event) => {
    if (event.target === sheet && event.offsetX < 0) sheet.close(); // beside it
  });
  sheet.addEventListener("close", () => {
    remember("");
    const link = byId(`L${open}`).querySelector("a");
    if (link) link.focus();
    open = null;
  });
  for (const button of document.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => {
      view = button.dataset.view;
      for (const other of document.querySelectorAll("[data-view]")) {
        press(other, other === button);
      }
      draw();
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (open !== null && event.key === "ArrowLeft") step(-1);
    else if (open !== null && event.key === "ArrowRight") step(1);
    else if (open === null && event.key === "/" && !typing) {
      event.preventDefault();
      search.focus();
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    if (open !== null) draw();
  });
  addEventListener("resize", () => {
    if (chart) chart.setSize({ width: Math.max(chartElement.clientWidth, 240), height: 330 });
  });

  function fromAddress() {
    const found = /^#L(\d+)$/.exec(location.hash);
    if (found && Number(found[1]) < rows.length) show(Number(found[1]));
  }

  table.classList.add("live");
  byId("tools").hidden = byId("hint").hidden = false;
  filter();
  addEventListener("hashchange", fromAddress);
  fromAddress();
})();
