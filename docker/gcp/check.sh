#!/usr/bin/env bash
# Looks over what makes the machine, as far as that is possible without Google: the syntax of main.tf
# (npm's @cdktf/hcl2json), that the template is filled in, and the schema of cloud-init.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

npm install --silent --no-audit --no-fund --prefix "$work" @cdktf/hcl2json@0.21.0 >/dev/null
NODE_PATH=$work/node_modules node -e '
  const { parse } = require("@cdktf/hcl2json");
  parse("main.tf", require("fs").readFileSync("main.tf", "utf8")).then(parsed => {
    const [machine] = parsed.resource.google_compute_instance.tarmac;
    const given = machine.metadata["user-data"].match(/, \{([^]*)\}\)/)[1];
    console.log(given.match(/^\s*\w+(?=\s*=)/gm).map(name => name.trim()).join("\n"));
  })' | sort >"$work/given"
sed 's/\$\${//g' cloud-init.yaml | grep -oE '\$\{[a-z]+\}' | tr -d '${}' | sort -u >"$work/wanted"
diff "$work/given" "$work/wanted" || { echo "main.tf and cloud-init.yaml name different things" >&2; exit 1; }

sed -e 's|\${domain}|flights.example|; s|\${bucket}|b|; s|\${repository}|https://example/r|' \
  -e 's|\${release}|v1|; s|\${image}|tarmac:v1|; s|\$\$|$|' cloud-init.yaml >"$work/cloud-init.yaml"
cloud-init schema --config-file "$work/cloud-init.yaml"
