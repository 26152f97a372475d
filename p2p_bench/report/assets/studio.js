(() => {
  const { token, options, most } = JSON.parse(document.getElementById("data").textContent);
  const get = (id) => document.getElementById(id);
  const made = (tag, text, name) => {
    const node = document.createElement(tag);
    if (text) node.textContent = text;
    if (name) node.className = name;
    return node;
  };
  const option = (group) => options[group].find((one) => one.name === get(group).value);
  let shown = false;

  const about = (group) => {
    const one = option(group);
    const place = get(`${group}-about`);
    place.replaceChildren(made("span", one.purpose));
    if (one.needs.length) place.append(" ", made("b", `Needs ${one.needs.join(", ")} under More settings.`));
    return one;
  };
  const sliders = () => {
    const one = about("controller");
    for (const name of ["cross", "self_attn"]) {
      get(name).disabled = !one[name];
      get(`${name}-shown`).textContent = one[name] ? `${Math.round(get(name).value * 100)} % of the steps` : "not this controller's";
    }
  };
  get("controller").addEventListener("change", sliders);
  for (const name of ["cross", "self_attn"]) get(name).addEventListener("input", sliders);
  get("inversion").addEventListener("change", () => about("inversion"));
  get("form").addEventListener("input", () => shown && get("results").classList.add("stale"));

  const pictured = () => { get("of-image").hidden = !get("image").files.length; };
  get("image").addEventListener("change", pictured);
  get("no-image").addEventListener("click", () => { get("image").value = ""; pictured(); });

  const encoded = (file) => new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).split(",", 2)[1] || "");
    reader.onerror = () => reject(new Error("the picture cannot be read; choose it again"));
    reader.readAsDataURL(file);
  });
  const filled = async () => {
    const form = {};
    for (const name of ["source", "target", "controller", "sampler", "more"]) form[name] = get(name).value;
    for (const name of ["cross", "self_attn", "seed", "steps", "guidance"]) form[name] = get(name).disabled ? null : get(name).valueAsNumber;
    const [file] = get("image").files;
    if (file) {
      if (file.size > most) throw new Error(`the picture's file is too large; choose one of at most ${most >> 20} MB`);
      Object.assign(form, { inversion: get("inversion").value, fit: get("fit").value });
      form.image = { name: file.name, data: await encoded(file) };
    }
    return form;
  };
  const sent = async (path, body) => {
    let answer;
    try {
      answer = await fetch(path, {
        method: body === undefined ? "GET" : "POST",
        headers: { "Content-Type": "application/json", "X-Studio-Token": token },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch {
      throw new Error("the studio does not answer; is it still running in the terminal?");
    }
    const data = await answer.json();
    if (!answer.ok) throw new Error(data.error);
    return data;
  };

  const figure = (one, name, caption) => {
    const node = made("figure", "", name);
    const image = made("img");
    image.src = one.src;
    image.alt = one.title || `${one.role}: ${one.word}`;
    node.append(image, caption);
    return node;
  };
  const show = (result) => {
    get("pictures").replaceChildren(...result.pictures.map((one) => {
      const caption = made("figcaption");
      caption.append(made("b", one.title), one.note);
      return figure(one, one.name, caption);
    }));
    const told = [...result.messages.map((text) => [text, "warning"]), ...result.notes.map((text) => [text, ""])];
    get("told").replaceChildren(...told.map(([text, name]) => made("li", text, name)));
    const numbers = [["UNet rows of this edit", result.rows.toLocaleString("en")]];
    if (result.plain_rows) numbers.push(["more for the target without control", result.plain_rows.toLocaleString("en")]);
    if (result.recalled) numbers.push(["of them saved, inverted before", result.recalled.toLocaleString("en")]);
    numbers.push(["seconds", String(result.seconds)]);
    if (result.fitted) numbers.push(["your image", result.fitted.replace(/^ \(|\)$/g, "")]);
    get("numbers").replaceChildren(...numbers.map(([name, value]) => {
      const row = made("div");
      row.append(made("dt", name), made("dd", value));
      return row;
    }));
    get("heat").hidden = !result.heatmaps.length;
    get("heatmaps").replaceChildren(...["source", "edit"].flatMap((role) => {
      const own = result.heatmaps.filter((one) => one.role === role);
      if (!own.length) return [];
      const row = made("div", "", "heat-row");
      row.append(...own.map((one) => figure(one, one.changed ? "changed" : "", made("figcaption", one.word))));
      return [made("h3", role === "source" ? "Source" : "Edit"), row];
    }));
    get("command").textContent = result.command;
    get("python").textContent = result.python;
    get("in-python").hidden = !result.python;
    get("lies").hidden = !get("image").files.length;
    get("begin").hidden = true;
    get("shown").hidden = false;
    get("results").classList.remove("stale");
    shown = true;
  };

  const watch = async () => {
    try {
      const { step, steps } = await sent("/progress");
      get("bar").value = steps ? step / steps : 0;
      get("state").textContent = steps ? `step ${step} of ${steps}` : "getting ready";
    } catch { /* the edit itself tells */ }
  };
  const working = (now) => {
    get("go").disabled = now;
    get("stop").hidden = !now;
    get("bar").hidden = !now;
    get("bar").value = 0;
    get("state").textContent = now ? "getting ready" : "";
  };
  get("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (get("go").disabled) return;
    working(true);
    get("error").hidden = true;
    const timer = setInterval(watch, 400);
    try {
      let answer = await sent("/edit", await filled());
      while (answer.job) answer = await sent(`/edit?job=${answer.job}`);
      show(answer);
      if (innerWidth <= 860) get("results").scrollIntoView({ behavior: "smooth" });
    } catch (error) {
      get("error").textContent = error.message;
      get("error").hidden = false;
      if (innerWidth <= 860) get("error").scrollIntoView({ block: "nearest" });
    }
    clearInterval(timer);
    working(false);
  });
  get("stop").addEventListener("click", () => sent("/stop", {}).catch(() => {}));
  for (const button of document.querySelectorAll("[data-copies]")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(get(button.dataset.copies).textContent);
      button.textContent = "copied";
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    });
  }
  sliders();
  about("inversion");
  pictured();
})();
