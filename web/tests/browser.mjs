// What the browser tests share: a browser, claims that end a test when they do not hold, and what a
// page must never do.

import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

export const WIDTHS = [360, 1280];
export const SCHEMES = ["light", "dark"];
const ARGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
];

class Broken extends Error {}

export function check(holds, claim) {
  if (!holds) throw new Broken(claim);
  console.log(`ok  ${claim}`);
}

// Console errors and exceptions of a page, except that the browser reports statuses that are meant:
// `expected` says of the URL and the text of a message whether it is one of them.
function watch(page, errors, expected) {
  page.on("pageerror", (error) => errors.push(`exception: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() !== "error") return;
    const url = message.location().url;
    if (!expected(url, message.text())) errors.push(`console: ${message.text()} (${url})`);
  });
  page.on("requestfailed", (request) => {
    // a page that is left closes its event stream
    if (request.url().endsWith("/events")) return;
    errors.push(`request: ${request.url()} ${request.failure()?.errorText}`);
  });
}

export async function withPage(browser, options, errors, expected, work) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(120_000);
  try {
    const page = await context.newPage();
    watch(page, errors, expected);
    return await work(page);
  } finally {
    await context.close();
  }
}

export async function photograph(page, directory, name) {
  const wide = await page.evaluate(
    () => document.documentElement.scrollWidth > document.documentElement.clientWidth,
  );
  check(!wide, `${name} does not scroll sideways`);
  await page.screenshot({ path: join(directory, `${name}.png`), fullPage: true });
}

// What axe finds wrong with the page as it is now, of serious impact and above.
export async function accessible(page, modules, name) {
  const source = readFileSync(join(modules, "node_modules/axe-core/axe.min.js"), "utf8");
  await page.evaluate(source);
  const { violations } = await page.evaluate(() => window.axe.run());
  const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
  const said = serious.map(({ id, nodes }) => `${id}: ${nodes[0].html}`).join("; ");
  check(serious.length === 0, `${name}: axe finds nothing serious ${said}`);
}

// Runs `work(browser, base, directory, modules)` and ends the process with what came of it.
export async function run(work) {
  try {
    const [base, directory] = process.argv.slice(2);
    const modules = process.env.PLAYWRIGHT_MODULES;
    if (!base || !directory || !modules) {
      throw new Broken("usage: PLAYWRIGHT_MODULES=<directory> node TEST.mjs <url> <screenshots>");
    }
    mkdirSync(directory, { recursive: true });
    const { chromium } = createRequire(join(resolve(modules), "any.js"))("playwright-core");
    const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
    const browser = await chromium.launch({ executablePath, args: ARGS });
    try {
      await work(browser, base.replace(/\/$/, ""), directory, modules);
    } finally {
      await browser.close();
    }
  } catch (error) {
    console.error(error instanceof Broken ? `broken: ${error.message}` : error);
    process.exitCode = 1;
  }
}
