// The pages of airlines, airplanes, airports and flights in a real browser, against a server with
// the shipped flights published behind it and a streaming job that answers.
//
//   PLAYWRIGHT_MODULES=<directory with node_modules> \
//     node pages.mjs http://localhost:5000 <directory for screenshots>
//
// CHROMIUM names the browser (default /usr/bin/chromium). Says what it checked; the first claim
// that does not hold ends it with a message and status 1.

import { SCHEMES, WIDTHS, accessible, check, photograph, run, withPage } from "./browser.mjs";

// name of the screenshot → path
const PAGES = {
  airlines: "/airlines",
  airline: "/airline/UA",
  airplanes: "/airplanes?Manufacturer=BOEING",
  airplane: "/airplane/N14228",
  airports: "/airports",
  airport: "/airport/JFK",
  routes: "/routes",
  search: "/flights/search?Origin=EWR&Dest=IAH",
  "search-wrong": "/flights/search?Origin=%3Cscript%3E&FlightDate=soon",
  "route-day": "/flights/EWR/IAH/2013-01-01",
  flight: "/on_time_performance?Carrier=UA&FlightDate=2013-01-01&FlightNum=1545",
  months: "/total_flights",
  "months-chart": "/total_flights_chart",
  delays: "/delays",
  model: "/model",
  overnight: "/flights/delays/predict_batch",
  predict: "/flights/delays/predict_kafka",
  api: "/api",
  missing: "/airline/XX",
};

// what a browser logs of the pages that say that something is wrong or not there
const expected = (url, text) =>
  (url.endsWith(PAGES.missing) && text.includes("404")) ||
  (url.endsWith(PAGES["search-wrong"]) && text.includes("400"));

const heading = async (page) => (await page.locator("h1").innerText()).trim();

// Follows a link and waits for the heading of the page that it leads to.
async function follow(page, link, want) {
  await link.click();
  await page.waitForFunction((want) => document.querySelector("h1")?.innerText.includes(want), want);
  check((await heading(page)).includes(want), `a link leads to ${want}`);
}

async function clickThrough(page, base, how) {
  await page.goto(base + "/flights/search");
  await page.fill("#Origin", "ewr");
  await page.fill("#Dest", "IAH");
  await page.fill("#FlightDate", "2013-01-01");
  await page.click("form.search button");
  const first = page.locator("tbody tr").first();
  check((await first.innerText()).includes("UA 1545"), `${how}: a search finds the flight`);
  check((await page.locator(".turn").innerText()).includes("flights; page 1 of"), `${how}: counted`);
  await follow(page, first.getByRole("link", { name: "UA 1545" }), "Flight UA 1545");
  await follow(page, page.getByRole("link", { name: "N14228" }), "Airplane N14228");
  await follow(page, page.locator(".intro").getByRole("link", { name: "UA" }), "United Air Lines");
  for (const want of ["Airplane N14228", "Flight UA 1545", "Flights"]) {
    await page.goBack();
    check((await heading(page)).includes(want), `${how}: back to ${want}`);
  }
  check((await page.inputValue("#Origin")).toUpperCase() === "EWR", `${how}: the search is kept`);
}

async function turnPages(page, base) {
  await page.goto(base + "/flights/search?Origin=EWR&Dest=IAH");
  const flights = () => page.locator("tbody").innerText();
  const one = await flights();
  await page.getByRole("link", { name: "Next" }).click();
  await page.waitForURL(/page=2/);
  check((await flights()) !== one, "the next page has other flights");
  await page.getByRole("link", { name: "Previous" }).click();
  await page.waitForURL(/page=1/);
  check((await flights()) === one, "and the one before has the first again");
}

async function leaveForTheNight(page, base) {
  await page.goto(base + PAGES.overnight);
  await page.click("#question button");
  await page.waitForURL(/predict_batch\/results\//);
  check((await page.locator("tbody").innerText()).includes("not yet"), "a question waits for the night");
}

async function checkAll(browser, base, directory, modules) {
  const errors = [];
  const open = (options, work) => withPage(browser, options, errors, expected, work);
  await open({}, (page) => clickThrough(page, base, "with script"));
  await open({ javaScriptEnabled: false }, (page) => clickThrough(page, base, "without script"));
  await open({}, (page) => turnPages(page, base));
  await open({ javaScriptEnabled: false }, (page) => leaveForTheNight(page, base));
  for (const width of WIDTHS) {
    for (const colorScheme of SCHEMES) {
      const options = { viewport: { width, height: 800 }, colorScheme };
      await open(options, async (page) => {
        for (const [name, path] of Object.entries(PAGES)) {
          await page.goto(base + path);
          await photograph(page, directory, `${name}-${width}-${colorScheme}`);
          await accessible(page, modules, `${name}-${width}-${colorScheme}`);
        }
      });
    }
  }
  check(errors.length === 0, `the console holds no errors ${errors.join("; ")}`);
}

run(checkAll);
