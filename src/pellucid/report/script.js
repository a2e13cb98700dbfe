"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const cases = [...document.querySelectorAll(".case")];
  const browse = find("browse"), which = find("which"), readout = find("readout");
  if (!browse || !cases.length) return;
  const MAPS = {
    raw: ["attention", "the weights as computed"],
    effective: ["effective attention", "without the part that cannot change the output; may be negative"],
    max_entropy: ["most even", "the most even weights with the same output"],
    witness: ["witness", "as far away as we could find, with the same output"],
  };
  const LEVELS = 12;
  const make = (tag, name, text) => {
    const e = document.createElement(tag);
    if (name) e.className = name;
    if (text !== undefined) e.textContent = text;
    return e;
  };

  // a whole number of last digits in words, as in the page made without a script
  const number = (k, digits, signed) => {
    if (k === null) return "not a number";
    const x = k / 10 ** digits;
    if (digits > 5) {
      const far = x.toExponential(2).replace(/e([+-])(\d)$/, "e$10$2");
      return k === 0 ? "0.00e+00" : signed && k > 0 ? "+" + far : far;
    }
    return (signed && k > 0 ? "+" : "") + x.toFixed(digits);
  };
  const weight = (k) => (k / 1e4).toFixed(3);
  const level = (x, scale, signed) => {
    const step = x === null || scale === 0 ? 0 : Math.round(Math.min(1, Math.abs(x) / scale) * LEVELS);
    return step ? (signed ? (x < 0 ? "n" : "p") : "u") + step : "";
  };
  const tokens = (panel) => [...panel.querySelectorAll(".text > span")];
  const told = new WeakMap(); // token -> () => what stands in the read-out
  const panels = cases.map((one, i) => [...one.querySelectorAll(".panel")].map((at, j) => {
    const own = tokens(at);
    const special = new Set(own.flatMap((e, k) => (e.classList.contains("s") ? [k] : [])));
    return { at, data: data[i][j], tokens: own, words: own.map((e) => e.textContent), special };
  }));

  const paint = (panel, method) => {
    const found = panel.data.m[method] ? method : Object.keys(panel.data.m)[0];
    if (panel.method === found) return;
    panel.method = found;
    const [scores, digits, isSigned, unit, label, sum, scale] = panel.data.m[found];
    const signed = Boolean(isSigned), special = panel.special;
    const end = Math.round(scale * 10 ** digits);
    panel.tokens.forEach((e, k) => {
      const name = level(scores[k], end, signed);
      e.className = [name, special.has(k) ? "s" : ""].filter(Boolean).join(" ");
      const shown = number(scores[k], digits, signed);
      e.title = shown;
      told.set(e, () => `“${panel.words[k]}”  ${shown} ${unit}  (${panel.method}, explains ${label})`);
    });
    const key = panel.at.querySelector(".key");
    key.textContent = "";
    if (scale === 0) key.textContent = "All scores are 0.";
    else {
      key.append(
        make("span", "low", signed ? number(-end, digits, true) : "0"),
        make("span", "ramp " + (signed ? "signed" : "single")),
        make("span", "high", number(end, digits, signed)),
        make("span", "unit", ` ${unit}; explains ${label}; by ${found}`),
      );
    }
    panel.at.querySelector(".sum").textContent = sum;
    const order = scores.map((x, k) => [Math.abs(x || 0), k]).filter(([, k]) => !special.has(k));
    order.sort((a, b) => b[0] - a[0] || a[1] - b[1]);
    panel.at.querySelector(".strong").textContent = order.slice(0, 6)
      .map(([, k]) => `${panel.words[k]} ${number(scores[k], digits, signed)}`).join(", ");
  };

  const strips = (panel) => {
    const box = panel.at.querySelector(".strips");
    if (!box || !panel.data.a || box.childElementCount) return;
    const { r, w, lo, hi } = panel.data.a;
    const words = w || panel.words;
    const names = Object.keys(r);
    const scale = Math.max(...names.flatMap((name) => r[name].map(Math.abs))) || 1;
    const text = panel.at.querySelector(".text");
    for (const name of names) {
      const line = make("p", "strip");
      const head = make("span", "line");
      head.append(make("b", "", MAPS[name][0]), make("small", "", " " + MAPS[name][1]));
      const body = make("span", "line tokens");
      body.dir = text.dir;
      words.forEach((word, k) => {
        const x = r[name][k];
        const e = make("span", x < 0 ? level(x, scale, true) : level(x, scale, false), word);
        e.title = weight(x);
        told.set(e, () => {
          const rest = names.map((other) => `${MAPS[other][0]} ${weight(r[other][k])}`).join(", ");
          const ends = lo ? `; could lie anywhere from ${weight(lo[k])} to ${weight(hi[k])}` : "";
          return `“${word}”  ${rest}${ends}`;
        });
        body.append(e, " ");
      });
      line.append(head, body);
      box.append(line);
      rove([...body.children], `${MAPS[name][0]}, token by token`, body);
    }
    box.hidden = false;
  };

  // one stop for Tab in each text; the arrow keys go from token to token
  const rove = (items, label, box) => {
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", label);
    items.forEach((e, k) => { e.tabIndex = k ? -1 : 0; });
    box.addEventListener("keydown", (event) => {
      const at = items.indexOf(event.target);
      const back = box.dir === "rtl" ? "ArrowRight" : "ArrowLeft", on = box.dir === "rtl" ? "ArrowLeft" : "ArrowRight";
      const to = { [back]: at - 1, [on]: at + 1, Home: 0, End: items.length - 1 }[event.key];
      if (at < 0 || to === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      if (!items[to]) return;
      items[at].tabIndex = -1;
      items[to].tabIndex = 0;
      items[to].focus();
    });
  };

  const say = (event) => {
    const tell = told.get(event.target);
    if (!tell) return;
    readout.textContent = tell();
    readout.hidden = false;
  };
  const area = find("cases");
  for (const kind of ["pointerover", "focusin", "click"]) area.addEventListener(kind, say);

  const method = () => document.querySelector('input[name="method"]:checked').value;
  let listed = [], at = 0;
  const show = (k) => {
    at = Math.max(0, Math.min(listed.length - 1, k));
    const chosen = listed[at];
    cases.forEach((e, i) => e.classList.toggle("on", i === chosen));
    readout.hidden = true;
    find("back").disabled = at <= 0;
    find("next").disabled = at >= listed.length - 1;
    find("count").textContent = listed.length ? `${at + 1} of ${listed.length}` : "no such text";
    if (chosen === undefined) return;
    which.value = String(chosen);
    for (const panel of panels[chosen]) { paint(panel, method()); strips(panel); }
  };
  const list = () => {
    const kept = listed[at];
    const kind = find("filter").value, order = find("order").value;
    listed = cases.map((_, i) => i).filter((i) => !kind || cases[i].dataset.kinds.split(" ").includes(kind));
    if (order) {
      const sure = (i) => Number(cases[i].dataset.sure || 0);
      listed.sort((a, b) => (order === "least" ? sure(a) - sure(b) : sure(b) - sure(a)) || a - b);
    }
    which.textContent = "";
    for (const i of listed) {
      const own = panels[i][0];
      const words = own.at.querySelector(".text").textContent.trim().replace(/\s+/g, " ");
      const plain = words.replace(/^\[CLS\] |^<s> | \[SEP\]$| <\/s>$/g, "");
      const wrong = cases[i].dataset.kinds.includes("wrong") ? " · wrong" : "";
      const name = `${cases[i].dataset.n}. ${plain.slice(0, 60)}${plain.length > 60 ? "…" : ""}${wrong}`;
      const option = make("option", "", name);
      option.value = String(i);
      which.append(option);
    }
    show(Math.max(0, listed.indexOf(kept)));
  };

  document.documentElement.classList.add("js");
  browse.hidden = false;
  for (const e of document.querySelectorAll(".script")) e.hidden = false;
  cases.forEach((one, i) => panels[i].forEach((p) => {
    const box = p.at.querySelector(".text");
    rove(p.tokens, "the text, token by token", box);
  }));
  which.addEventListener("change", () => show(listed.indexOf(Number(which.value))));
  find("back").addEventListener("click", () => show(at - 1));
  find("next").addEventListener("click", () => show(at + 1));
  find("filter").addEventListener("change", list);
  find("order").addEventListener("change", list);
  browse.addEventListener("change", (event) => {
    if (event.target.name === "method") show(at);
  });
  document.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.target !== document.body && event.target.tagName !== "BUTTON") return;
    event.preventDefault();
    show(at + step);
  });
  window.addEventListener("beforeprint", () => {
    for (const one of panels) for (const panel of one) paint(panel, method());
  });
  list();
})();
