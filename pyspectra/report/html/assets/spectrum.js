/* Spectra of a layer: points as the page carries them, and two pictures of them. */
"use strict";

const spectrum = (() => {
  const STEPS = 65535;
  const BINS = 48;

  /** The points of a curve, ascending: eigenvalue x, and the share of eigenvalues at or above. */
  function decode(curve, ranks) {
    const bytes = Uint8Array.from(atob(curve.q), (sign) => sign.charCodeAt(0));
    const of = ranks[curve.k];
    const points = of.map((rank, i) => {
      const step = bytes[2 * i] + 256 * bytes[2 * i + 1];
      const log = curve.lo + (curve.hi - curve.lo) * (step / STEPS);
      return { log, rank, share: rank / curve.n };
    });
    return points.reverse();
  }

  /** Where the picture begins: eigenvalues of all but zero would leave no room for the tail. */
  function begin(curves, decoded) {
    const starts = decoded.map((points, i) => {
      const at = (share) => (points.find((p) => p.share <= share) || points[0]).log;
      const x = curves[i].x ? Math.log10(curves[i].x) - 0.5 : Infinity;
      return Math.max(points[0].log, at(0.5) - 2, Math.min(at(0.97), x));
    });
    return Math.min(...starts);
  }

  /** The share at or above, against the eigenvalue: a power law is a straight line. */
  function tail(curves, decoded) {
    const tables = [];
    curves.forEach((curve, i) => {
      tables.push([
        Float64Array.from(decoded[i], (p) => 10 ** p.log),
        Array.from(decoded[i], (p) => p.share),
      ]);
      const law = curve.law || [[], []];
      tables.push([
        Float64Array.from(law[0], (v) => 10 ** v),
        Array.from(law[1], (v) => 10 ** v),
      ]);
    });
    return distinct(tables);
  }

  /** Join tables of x and y in one of all x, as uPlot wants them. */
  function distinct(tables) {
    const all = [...new Set(tables.flatMap((table) => [...table[0]]))].sort((a, b) => a - b);
    const columns = tables.map(([xs, ys]) => {
      const of = new Map();
      xs.forEach((x, i) => of.set(x, ys[i])); // of equal eigenvalues the last one
      return all.map((x) => (of.has(x) ? of.get(x) : undefined));
    });
    return [all, ...columns];
  }

  /** How many eigenvalues lie in each bin of the logarithm, as a share of a decade. */
  function density(curves, decoded, from) {
    const to = Math.max(...curves.map((curve) => curve.hi));
    const width = Math.max((to - from) / BINS, 1e-6);
    const centres = Array.from({ length: BINS }, (_, b) => from + (b + 0.5) * width);
    const columns = curves.flatMap((curve, i) => {
      const above = (log) => shareAt(decoded[i], log);
      const heights = centres.map(
        (c, b) => (above(c - width / 2) - (b === BINS - 1 ? 0 : above(c + width / 2))) / width);
      const law = curve.law || [[], []];
      const fitted = centres.map((c) => slopeAt(law, c));
      return [heights, fitted];
    });
    return [Float64Array.from(centres, (c) => 10 ** c), ...columns];
  }

  /** The share of eigenvalues at or above a logarithm, between points by a straight line. */
  function shareAt(points, log) {
    if (log <= points[0].log) return points[0].share;
    const last = points.length - 1;
    if (log > points[last].log) return 0;
    let low = 0, high = last;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle].log < log) low = middle; else high = middle;
    }
    const a = points[low], b = points[high];
    if (b.rank === a.rank - 1 || b.log === a.log) return b.share; // every eigenvalue is known
    return a.share + (b.share - a.share) * ((log - a.log) / (b.log - a.log));
  }

  /** Density of a law for a decade, from its logarithms of eigenvalue and share. */
  function slopeAt([xs, ys], log) {
    for (let i = 0; i + 1 < xs.length; i++) {
      if (log >= xs[i] && log <= xs[i + 1]) {
        const slope = (ys[i + 1] - ys[i]) / (xs[i + 1] - xs[i]);
        return -slope * Math.LN10 * 10 ** (ys[i] + slope * (log - xs[i]));
      }
    }
    return undefined;
  }

  /** Ticks of a logarithmic axis: powers of ten, and parts of them on a short one. */
  function decades(u, axis, low, high) {
    const width = Math.log10(high / low);
    const parts = width > 2.5 ? [1] : width > 1 ? [1, 3] : [1, 1.5, 2, 3, 5, 7];
    const every = Math.max(1, Math.ceil(width / 8));
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      if (power % every) continue;
      for (const part of parts) {
        const split = Number(`${part}e${power}`);
        if (split >= low && split <= high) found.push(split);
      }
    }
    return found;
  }

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  /** A number with few digits, as an axis shows it. */
  function short(value) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size < 1e5 && size >= 1e-3) return String(Number(value.toPrecision(3)));
    return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
  }

  const COLOURS = ["--c0", "--c1"];

  /** Draw spectra into an element; what the pointer is at is told to `say`. */
  function draw(element, curves, ranks, view, say) {
    const decoded = curves.map((curve) => decode(curve, ranks));
    const from = begin(curves, decoded);
    const to = Math.max(...curves.map((curve) => curve.hi));
    const data = view === "tail" ? tail(curves, decoded) : density(curves, decoded, from);
    const least = Math.min(...curves.map((curve) => 1 / curve.n));
    const margin = 0.02 * (to - from) + 0.02;
    const axis = {
      stroke: colour("--soft"),
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { show: false },
      values: (u, splits) => splits.map(short),
      font: `12px ${colour("--sans")}`,
      labelFont: `12px ${colour("--sans")}`,
      labelSize: 22,
    };
    const logarithmic = { splits: decades, filter: (u, splits) => splits };
    const inY = view === "tail" ? logarithmic : {};
    const options = {
      width: Math.max(element.clientWidth, 240),
      height: 330,
      legend: { show: false },
      cursor: { points: { size: 7 }, drag: { x: true, y: false } },
      scales: {
        x: { time: false, distr: 3, range: (u, low, high) => (
          u.narrowed ? [low, high] : [10 ** (from - margin), 10 ** (to + margin)]) },
        y: view === "tail"
          ? { distr: 3, range: () => [0.6 * least, 1.3] }
          : { range: (u, low, high) => [0, 1.08 * high] },
      },
      axes: [
        { ...axis, ...logarithmic, label: "eigenvalue λ", size: 34 },
        { ...axis, ...inY, size: 56,
          label: view === "tail" ? "share of eigenvalues ≥ λ" : "share of eigenvalues in a decade" },
      ],
      series: [{}, ...curves.flatMap((_, i) => [
        spectrumLine(view, i, curves[i], data), lawLine(curves, i)])],
      hooks: {
        drawClear: [(u) => curves.forEach((curve, i) => {
          const own = alone(curves) ? "--soft" : COLOURS[i];
          upright(u, curve.x, alone(curves) ? "tail begins" : "", own);
          upright(u, curve.e, alone(curves) ? "bulk ends" : "", own, 16);
        })],
        setCursor: [(u) => say(reading(u, curves, decoded))],
        setSelect: [(u) => { u.narrowed = u.select.width > 0; }],
      },
    };
    const chart = new uPlot(options, data, element);
    chart.over.addEventListener("dblclick", () => { chart.narrowed = false; }, true);
    return chart;
  }

  function spectrumLine(view, i, curve, data) {
    const stroke = colour(COLOURS[i]);
    const ofTail = () => data[0].flatMap((x, at) => (
      x >= (curve.x || Infinity) * (1 - 1e-4) && data[2 * i + 1][at] !== undefined ? [at] : []));
    return {
      stroke, width: 2, spanGaps: true,
      points: view === "tail" ? { show: true, size: 4.5, fill: stroke, width: 0, filter: ofTail }
        : { show: false },
      paths: view === "tail" ? undefined : uPlot.paths.stepped({ align: 0 }),
      fill: view === "tail" ? undefined : `${stroke}26`,
    };
  }

  /** Whether one law at most is fitted, so that its marks need not tell whose they are. */
  function alone(curves) {
    return curves.filter((curve) => curve.law).length < 2;
  }

  function lawLine(curves, i) {
    return {
      stroke: colour(alone(curves) ? "--c3" : COLOURS[i]), width: 2, dash: [7, 5], spanGaps: true,
      points: { show: false },
    };
  }

  /** A line at an eigenvalue, with what it says. */
  function upright(u, x, words, stroke, above = 0) {
    if (!x) return;
    const at = Math.round(u.valToPos(x, "x", true));
    const { left, top, width, height } = u.bbox;
    if (at < left || at > left + width) return;
    const { ctx } = u;
    const dot = devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = colour(stroke);
    ctx.fillStyle = colour("--soft");
    ctx.lineWidth = dot;
    ctx.setLineDash([2 * dot, 3 * dot]);
    ctx.beginPath();
    ctx.moveTo(at, top);
    ctx.lineTo(at, top + height);
    ctx.stroke();
    ctx.textBaseline = "bottom";
    ctx.font = `${12 * dot}px ${colour("--sans")}`;
    ctx.textAlign = at > left + 0.8 * width ? "right" : "left";
    ctx.fillText(words, at + (ctx.textAlign === "left" ? 5 : -5) * dot,
      top + height - (4 + above) * dot);
    ctx.restore();
  }

  /** What the pointer is at, in words. */
  function reading(u, curves, decoded) {
    const { left } = u.cursor;
    if (left === undefined || left < 0) return "";
    const x = u.posToVal(left, "x");
    const told = curves.map((curve, i) => {
      const count = Math.round(shareAt(decoded[i], Math.log10(x)) * curve.n);
      return `${count} of ${curve.n}`;
    });
    return `λ ≥ ${x.toPrecision(3)}: ${told.join(" and ")} eigenvalues`;
  }

  return { draw, alone };
})();
