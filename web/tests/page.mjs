// The pages in a real browser, against a server with a streaming job behind it whose window is
// short, and with carrier UA and airports EWR and IAH known to the model.
//
//   PLAYWRIGHT_MODULES=<directory with node_modules/playwright-core> \
//     node page.mjs http://localhost:5000 <directory for screenshots>
//
// CHROMIUM names the browser (default /usr/bin/chromium). Says what it checked; the first claim
// that does not hold ends it with a message and status 1.

import { randomUUID } from "node:crypto";

import { SCHEMES, WIDTHS, check, photograph, run, withPage } from "./browser.mjs";

const FORM = "/flights/delays/predict_kafka";
const ASK = "/flights/delays/predict/classify_realtime";
const LABELS = ["Early", "Slightly early", "Slightly late", "Very late"];
// a window, its scoring and a cold start; far below the five minutes of the event stream
const ANSWER_MS_MAX = 60_000;

// the 422 of an invalid form, which is how the form is meant to answer
const expected = (url, text) => url.endsWith(ASK) && text.includes("422");

async function fill(page, values) {
  for (const [name, value] of Object.entries(values)) await page.fill(`#${name}`, value);
}

const FLIGHT = { DepDelay: "45", Carrier: "UA", Origin: "EWR", Dest: "IAH", FlightNum: "1545" };

async function checkResult(page, how) {
  const card = page.locator('#answer [data-card="result"]');
  await card.waitFor({ timeout: ANSWER_MS_MAX });
  const label = (await card.locator(".label").innerText()).trim();
  check(LABELS.includes(label), `${how}: the result is one of the four classes (${label})`);
  check((await card.locator(".bars svg.bar").count()) === 4, `${how}: there are four bars`);
  const percents = await card.locator(".bars .percent").allInnerTexts();
  const sum = percents.map(parseFloat).reduce((a, b) => a + b, 0);
  check(Math.abs(sum - 100) < 0.5, `${how}: the percentages sum to 100 (${percents.join(", ")})`);
  const version = card.locator(".version");
  check(/^[0-9a-f]{12}$/.test(await version.innerText()), `${how}: the model's version is shown`);
  check(/^[0-9a-f]{64}$/.test(await version.getAttribute("title")), `${how}: in full as title`);
  check((await card.innerText()).includes("EWR → IAH"), `${how}: the route is shown`);
  return new URL(page.url()).searchParams.get("id");
}

async function checkWithScript(page, base) {
  await page.goto(base + FORM);
  await fill(page, FLIGHT);
  let loads = 0;
  page.on("load", () => (loads += 1));
  await page.click("#question button");
  const id = await checkResult(page, "with script");
  check(loads === 0, "with script: the result appears without a reload");
  check(/^[0-9a-f-]{36}$/.test(id ?? ""), "with script: the address names the question");
  await page.reload();
  check((await checkResult(page, "reloaded")) === id, "reloaded: the result is still there");
  await page.locator(".reasons .moves li").first().waitFor();
  check(true, "the answer says what moved it");
  await page.fill("#what-if", "-20");
  await page.click(".what-if button");
  await page.waitForURL((url) => url.searchParams.get("id") !== id);
  const again = await checkResult(page, "what if");
  check(page.url().includes("DepDelay=-20"), "what if: the address holds the question");
  check(again !== id, "what if: the same flight is asked again with another delay");
  check((await page.inputValue("#DepDelay")) === "-20", "what if: the form shows the delay");
  return id;
}

async function checkWithoutScript(page, base) {
  await page.goto(base + FORM);
  await fill(page, FLIGHT);
  await page.click("#question button");
  await page.waitForURL(/predict_kafka\?id=/);
  check(true, "without script: the form redirects to the page of the question");
  await checkResult(page, "without script");
}

// What the script of the original system did: a library had parsed what said that it is JSON, and
// the script parsed what it got once more; then it asked each second.
async function checkOriginal(page, base) {
  await page.goto(base + FORM);
  const prediction = await page.evaluate(
    async ([ask, values]) => {
      const send = (method, url, body) =>
        new Promise((resolve, reject) => {
          const request = new XMLHttpRequest();
          request.open(method, url);
          request.setRequestHeader("X-Requested-With", "XMLHttpRequest");
          if (body) request.setRequestHeader("Content-Type", "application/x-www-form-urlencoded");
          request.onload = () => resolve(request);
          request.onerror = reject;
          request.send(body);
        });
      const posted = await send("POST", ask, new URLSearchParams(values).toString());
      const isJson = posted.getResponseHeader("Content-Type").includes("json");
      let state = JSON.parse(isJson ? JSON.parse(posted.responseText) : posted.responseText);
      const { id } = state;
      do {
        await new Promise((done) => setTimeout(done, 1000));
        state = JSON.parse((await send("GET", `${ask}/response/${id}`)).responseText);
      } while (state.status === "WAIT");
      return state.prediction.Prediction;
    },
    [ASK, { ...FLIGHT, FlightDate: "2016-12-25" }],
  );
  check([0, 1, 2, 3].includes(Number(prediction)), `the original's script gets ${prediction}`);
}

async function checkAddress(page, base) {
  await page.goto(`${base}${FORM}?id=${randomUUID()}&Origin=LGA&Dest=BOS&DepDelay=7`);
  for (const [name, value] of [["Origin", "LGA"], ["Dest", "BOS"], ["DepDelay", "7"]]) {
    check((await page.inputValue(`#${name}`)) === value, `the form is the question: ${name}`);
  }
  let loads = 0;
  page.on("load", () => (loads += 1));
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.waitForURL(/#/);
  check(loads === 0, "skipping to the content does not reload");
}

async function checkMessages(page, base, how) {
  await page.goto(base + FORM);
  await fill(page, { Origin: "<script>", DepDelay: "abc" });
  await page.click("#question button");
  await page.locator("#Origin-error:visible").waitFor();
  for (const [name, text] of [["Origin", "Origin must be"], ["DepDelay", "is not a number"]]) {
    const message = page.locator(`#${name}-error`);
    check((await message.innerText()).includes(text), `${how}: ${name} says "${text}"`);
    const input = page.locator(`#${name}`);
    check((await input.getAttribute("aria-invalid")) === "true", `${how}: ${name} is marked`);
    const described = (await input.getAttribute("aria-describedby")).split(" ");
    check(described.includes(`${name}-error`), `${how}: ${name} is described by its message`);
    const [field, note] = [await input.boundingBox(), await message.boundingBox()];
    const gap = note.y - (field.y + field.height);
    check(gap >= 0 && gap < 24, `${how}: the message is right below ${name}`);
  }
  check((await page.inputValue("#Origin")) === "<script>", `${how}: what was typed is kept`);
  check(!(await page.locator("#Dest-error").isVisible()), `${how}: a good field has no message`);
  const focused = await page.evaluate(() => document.activeElement?.id);
  check(focused === "Origin", `${how}: the first wrong field has the focus`);
}

async function photographAll(page, base, id, directory, name) {
  const shoot = (what) => photograph(page, directory, `${what}-${name}`);
  await page.goto(base + FORM);
  await shoot("form");
  await fill(page, { Origin: "<script>", DepDelay: "abc" });
  await page.click("#question button");
  await page.locator("#Origin-error:visible").waitFor();
  await shoot("errors");
  // a question that nobody asked waits as long as we look
  await page.goto(`${base}${FORM}?id=${randomUUID()}`);
  await page.locator('#answer [data-card="waiting"]').waitFor();
  await shoot("waiting");
  await page.goto(`${base}${FORM}?id=${id}`);
  await page.locator('#answer [data-card="result"]').waitFor();
  await shoot("result");
}

async function checkAll(browser, base, directory) {
  const errors = [];
  const id = await withPage(browser, {}, errors, expected, (page) => checkWithScript(page, base));
  const still = { javaScriptEnabled: false };
  await withPage(browser, still, errors, expected, (page) => checkWithoutScript(page, base));
  await withPage(browser, {}, errors, expected, (page) => checkOriginal(page, base));
  await withPage(browser, {}, errors, expected, (page) => checkAddress(page, base));
  await withPage(browser, {}, errors, expected, (page) => checkMessages(page, base, "with script"));
  for (const width of WIDTHS) {
    for (const colorScheme of SCHEMES) {
      const options = { viewport: { width, height: 800 }, colorScheme };
      const name = `${width}-${colorScheme}`;
      await withPage(browser, options, errors, expected, (page) =>
        photographAll(page, base, id, directory, name),
      );
    }
  }
  check(errors.length === 0, `the console holds no errors ${errors.join("; ")}`);
}

run(checkAll);
