// Sorting, filtering, tips and the theme. Without it the page is complete, only still.
"use strict";

(() => {
  const all = (css, root = document) => [...root.querySelectorAll(css)];
  const status = document.getElementById("status");

  // Theme: the system's until the reader chooses; the choice is kept where storage is allowed.
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const remembered = (value) => {
    try {
      if (value !== undefined) localStorage.setItem("tempeval-theme", value);
      return localStorage.getItem("tempeval-theme");
    } catch {
      return null;
    }
  };
  const theme = () => document.documentElement.dataset.theme || (system.matches ? "dark" : "light");
  const show = () => {
    button.textContent = theme() === "dark" ? "Light theme" : "Dark theme";
  };
  const chosen = remembered();
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  button.hidden = false;
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = theme() === "dark" ? "light" : "dark";
    remembered(document.documentElement.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  show();

  // Sorting: first the direction the column asks for, then the other, then the original order.
  const key = (row, column) => {
    const cell = row.cells[column];
    const value = cell.dataset.value;
    if (value === undefined) return cell.textContent.trim();
    return value === "" ? null : Number(value);
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en");
  const sort = (table, header) => {
    const column = header.cellIndex;
    const first = header.dataset.first || "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const now = header.getAttribute("aria-sort");
    const next = now === first ? other : now === other ? "none" : first;
    for (const each of all("thead th[aria-sort]", table)) each.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", next);
    const body = table.tBodies[0];
    const sign = next === "descending" ? -1 : 1;
    const rows = [...body.rows].sort((a, b) => {
      if (next !== "none") {
        const [x, y] = [key(a, column), key(b, column)];
        if (x === null || y === null) {
          if (x !== y) return x === null ? 1 : -1; // a missing value is last either way
        } else if (compare(x, y) !== 0) return sign * compare(x, y);
      }
      return Number(a.dataset.order) - Number(b.dataset.order);
    });
    body.append(...rows);
    const name = header.textContent.trim();
    status.textContent = next === "none" ? "Original order" : `Sorted by ${name}, ${next}`;
  };
  for (const table of all("table.sortable")) {
    [...table.tBodies[0].rows].forEach((row, place) => { row.dataset.order = place; });
    for (const header of all("thead th[aria-sort]", table)) {
      const control = document.createElement("button");
      control.type = "button";
      control.append(...header.childNodes);
      header.append(control);
      control.addEventListener("click", () => sort(table, header));
    }
  }

  // Filtering: every word must be in what a row or a run is about (method, tasks, runs); points of
  // plots fade.
  for (const input of all("input[type=search]")) {
    input.closest(".tools").hidden = false;
    const scope = document.getElementById(input.dataset.filters);
    const found = input.closest(".tools").querySelector("output");
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const matches = (text) => words.every((word) => text.toLowerCase().includes(word));
      const tables = all("table.filterable", scope);
      for (const table of tables) {
        for (const row of table.tBodies[0].rows) {
          row.hidden = !matches(row.dataset.name || row.textContent);
        }
      }
      for (const run of all("details.run", scope)) run.hidden = !matches(run.dataset.name);
      for (const point of all(".point", scope)) {
        point.classList.toggle("faded", !matches(point.dataset.name));
      }
      const rows = all("table.summary tbody tr", scope);
      found.textContent = words.length
        ? `${rows.filter((row) => !row.hidden).length} of ${rows.length}`
        : "";
    });
  }

  // Tips: one box, filled on hover and focus; arrow keys move between the cells that have one.
  const tip = document.getElementById("tip");
  let owner = null;
  let timer = 0;
  const hide = () => {
    clearTimeout(timer);
    tip.hidden = true;
    if (owner) owner.removeAttribute("aria-describedby");
    owner = null;
  };
  const place = (target) => {
    const box = target.getBoundingClientRect();
    const size = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - size.width / 2),
      Math.max(8, document.documentElement.clientWidth - size.width - 8));
    const above = box.top - size.height - 4;
    tip.style.left = `${left}px`;
    tip.style.top = `${above >= 8 ? above : box.bottom + 4}px`;
  };
  const reveal = (target) => {
    hide();
    owner = target;
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    if (!target.hasAttribute("aria-label")) target.setAttribute("aria-describedby", "tip");
    place(target);
  };
  const holder = (event) => event.target.closest && event.target.closest("[data-tip]");
  document.addEventListener("pointerover", (event) => {
    const target = holder(event);
    clearTimeout(timer);
    if (target) reveal(target);
    // Time to move the pointer onto the tip, so that its text can be read or copied.
    else if (owner && owner !== document.activeElement && event.target !== tip) {
      timer = setTimeout(hide, 200);
    }
  });
  document.addEventListener("focusin", (event) => {
    const target = holder(event);
    if (target) reveal(target);
  });
  document.addEventListener("focusout", hide);
  // The focus may scroll to where it goes: its tip stays, at its new place.
  const moved = () => {
    if (owner && owner === document.activeElement) place(owner);
    else hide();
  };
  document.addEventListener("scroll", moved, { capture: true, passive: true });

  const neighbour = (from, name) => {
    const row = from.closest("tr");
    if (!row) {
      const points = all(".point", from.closest("svg"));
      const step = name === "ArrowRight" || name === "ArrowDown" ? 1 : -1;
      return points[points.indexOf(from) + step];
    }
    if (name === "ArrowLeft" || name === "ArrowRight") {
      const cells = all("[data-tip]", row);
      return cells[cells.indexOf(from) + (name === "ArrowRight" ? 1 : -1)];
    }
    const rows = [...row.parentNode.rows].filter((each) => !each.hidden);
    const step = name === "ArrowDown" ? 1 : -1;
    for (let i = rows.indexOf(row) + step; i >= 0 && i < rows.length; i += step) {
      const cell = rows[i].cells[from.cellIndex];
      if (cell && cell.matches("[data-tip]")) return cell;
    }
    return undefined;
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const from = holder(event);
    if (!from || !event.key.startsWith("Arrow")) return;
    const next = neighbour(from, event.key);
    if (!next) return;
    event.preventDefault();
    from.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
  // One stop of the Tab key for each table: the first cell with a tip, until arrows move it.
  for (const table of all("table")) {
    all("[data-tip]", table).forEach((cell, place) => { cell.tabIndex = place ? -1 : 0; });
  }

  // A link into a closed block opens it; everything is open on paper.
  const unfold = () => {
    const target = document.getElementById(location.hash.slice(1));
    for (let at = target; at; at = at.parentElement) if (at.matches("details")) at.open = true;
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", unfold);
  if (location.hash) unfold();
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const each of closed) each.open = true;
  });
  addEventListener("afterprint", () => {
    for (const each of closed) each.open = false;
  });
})();
