"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const read = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "null");
  const element = (tag, text, className = "") => {
    const made = document.createElement(tag);
    made.textContent = text;
    made.className = className;
    return made;
  };

  // --- Tables: a click on a header sorts, numbers by value ---

  const number = (text) => parseFloat(text.replace(/[,%\s]|^[^\d+\-.]+/g, "").replace("−", "-"));
  const sortBy = (table, column, header) => {
    const descending = header.getAttribute("aria-sort") === "ascending";
    all("th", table.tHead).forEach((th) => th.removeAttribute("aria-sort"));
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].map((row) => [row.cells[column].innerText.trim(), row]);
    const filled = rows.filter(([text]) => text && text !== "-");
    const numeric = filled.every(([text]) => /^[^\p{L}]*\d/u.test(text));
    const compare = numeric ? ([a], [b]) => number(a) - number(b) : ([a], [b]) => a.localeCompare(b);
    filled.sort(descending ? (a, b) => compare(b, a) : compare);
    const empty = rows.filter(([text]) => !text || text === "-");  // last, either way
    table.tBodies[0].append(...[...filled, ...empty].map(([, row]) => row));
  };
  all("table:not(.matrix)").forEach((table) =>
    all("thead th:not(.plain)", table).forEach((header) => {
      const button = element("button", header.textContent);
      button.type = "button";
      button.addEventListener("click", () => sortBy(table, header.cellIndex, header));
      header.replaceChildren(button);
    })
  );

  // --- Verdicts: the sentence appears beside the one that is pointed at ---

  all("[popovertarget]").forEach((button) => {
    const why = document.getElementById(button.getAttribute("popovertarget"));
    why.addEventListener("toggle", () => {
      const box = button.getBoundingClientRect();
      const below = box.bottom + why.offsetHeight + 10 < innerHeight;
      why.style.left = `${Math.max(8, Math.min(box.left, innerWidth - why.offsetWidth - 8))}px`;
      why.style.top = `${below ? box.bottom : Math.max(4, box.top - why.offsetHeight)}px`;
    });
    let isHovered = false;  // shown as long as the mouse is on the verdict or on its sentence
    why.addEventListener("toggle", (event) => (isHovered &&= event.newState === "open"));
    button.addEventListener("pointerenter", (event) => {
      if (event.pointerType !== "mouse" || why.matches(":popover-open")) return;
      isHovered = true;
      why.showPopover();
    });
    [button, why].forEach((place) =>
      place.addEventListener("pointerleave", (event) => {
        const next = event.relatedTarget;
        if (isHovered && next !== button && !why.contains(next)) why.hidePopover();
      })
    );
    button.addEventListener("click", (event) => {
      if (isHovered) event.preventDefault();  // a click makes it stay
      isHovered = false;
    });
  });

  // --- Learning curves: arms on and off, one seed, values under the pointer ---

  const data = read("curve-data");
  const isOn = (arm) => document.querySelector(`[data-switch="${arm}"]`).checked;
  const follow = document.getElementById("follow");
  all("[data-switch]").forEach((box) =>
    box.addEventListener("change", () =>
      all(`.plots [data-arm="${box.dataset.switch}"]`).forEach((group) => group.classList.toggle("off", !box.checked))
    )
  );
  follow?.addEventListener("change", () => {
    document.body.classList.toggle("following", follow.value !== "");
    all("[data-seed]").forEach((shape) =>
      shape.classList.toggle("followed", follow.value !== "" && shape.dataset.seed === follow.value)
    );
  });

  const describe = (panel, step) => {
    const lines = [element("span", `epoch ${data.curves.epochs[step]}`, "quiet")];
    data.names.forEach((name, arm) => {
      const mean = panel.mean[arm][step];
      if (!isOn(arm) || mean === null) return;
      let text = `${name}: ${mean}`;
      if (panel.low[arm][step] !== null) text += ` [${panel.low[arm][step]}, ${panel.high[arm][step]}]`;
      if (follow?.value) {
        const value = panel.members[arm][data.curves.seeds.indexOf(Number(follow.value))][step];
        text += `; seed ${follow.value}: ${value ?? "ended"}`;
      }
      lines.push(element("span", text));
    });
    return lines;
  };
  all("[data-panel]").forEach((frame) => {
    const panel = data.curves.panels[frame.dataset.panel];
    const epochs = data.curves.epochs;
    const [tip, cursor] = [frame.querySelector(".tip"), frame.querySelector(".cursor")];
    const last = epochs[epochs.length - 1];
    const margin = Math.min(Math.max(0.025 * (last - 1), 0.3), 0.9);  // as of the axis
    const place = (epoch) => (epoch - 1 + margin) / (last - 1 + 2 * margin);
    let step = -1;
    const show = (next) => {
      step = Math.max(0, Math.min(epochs.length - 1, next));
      const x = 100 * place(epochs[step]);
      cursor.setAttribute("x1", `${x}%`);
      cursor.setAttribute("x2", `${x}%`);
      cursor.setAttribute("visibility", "visible");
      tip.replaceChildren(...describe(panel, step));
      tip.hidden = false;
      tip.style.left = x < 50 ? `calc(${x}% + 10px)` : "auto";
      tip.style.right = x < 50 ? "auto" : `calc(${100 - x}% + 10px)`;
    };
    const hide = () => {
      tip.hidden = true;
      cursor.setAttribute("visibility", "hidden");
    };
    const point = (event) => {
      const box = frame.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      const distances = epochs.map((epoch) => Math.abs(place(epoch) - share));
      show(distances.indexOf(Math.min(...distances)));
    };
    frame.addEventListener("pointermove", point);
    frame.addEventListener("pointerdown", point);
    frame.addEventListener("pointerleave", hide);
    frame.addEventListener("blur", hide);
    frame.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: step - 1, ArrowRight: step + 1, Home: 0, End: epochs.length - 1 }[event.key];
      if (event.key === "Escape") hide();
      if (move === undefined) return;
      event.preventDefault();
      show(move);
    });
  });

  // --- The examples behind a cell ---

  const examples = read("example-data");
  const picture = (index) => {
    if (!examples.tile) return element("div", examples.texts[index], "values");
    const place = examples.places[index];
    const tile = element("div", "", "tile");
    tile.setAttribute("role", "img");
    tile.setAttribute("aria-label", `test image ${index}`);
    const [width, height] = examples.tile;
    const [column, row] = [place % examples.columns, Math.floor(place / examples.columns)];
    tile.style.backgroundPosition = `-${column * width}px -${row * height}px`;
    return tile;
  };
  all("[data-cell]").forEach((button) =>
    button.addEventListener("click", () => {
      all("[data-cell]").forEach((other) => other.setAttribute("aria-pressed", other === button));
      const [arm, actual, answer] = button.dataset.cell.split(",").map(Number);
      const [actualName, answerName] = [examples.classes[actual], examples.classes[answer]];
      const title = `${examples.names[arm]}: true ${actualName}, and most like ${answerName}`;
      const gallery = element("div", "", "gallery");
      examples.cells[button.dataset.cell].forEach(([index, probability]) => {
        const figure = element("figure", "", actual === answer ? "example" : "example mistake");
        figure.append(picture(index), element("figcaption", `example ${index}: p(${answerName}) = ${probability}`));
        gallery.append(figure);
      });
      const behind = document.getElementById("behind");
      behind.replaceChildren(element("h3", title), gallery);
      behind.scrollIntoView({ block: "nearest" });
    })
  );

  // --- The command, and printing ---

  document.getElementById("copy")?.addEventListener("click", async ({ currentTarget: button }) => {
    const code = document.querySelector(".command code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {  // where pages from a file may not: it is selected, for the keyboard
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
  });
  addEventListener("beforeprint", () => all("details").forEach((details) => (details.open = true)));
})();
