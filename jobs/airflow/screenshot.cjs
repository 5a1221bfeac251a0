// node screenshot.cjs URL TEXT FILE: what a person sees of a page once it says TEXT.
const { chromium } = require("playwright-core");

(async () => {
  const [url, text, file] = process.argv.slice(2);
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu"],
  });
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, locale: "en-US" });
  await page.goto(url, { waitUntil: "networkidle" });
  await page.getByText(text).first().waitFor({ timeout: 60_000 });
  await page.waitForLoadState("networkidle");
  await page.screenshot({ path: file });
  await browser.close();
})();
