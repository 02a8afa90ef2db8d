// Holds custom resources against their published definitions.
//
// In: a JSON list of objects on standard input. Out: a JSON list of what is wrong with each, "" where nothing is. The
// validators check types, formats and what is required; a field that a definition does not have is found by the compiler.
import { writeFileSync } from "node:fs";
import ts from "typescript";

const PACKAGES = {
  "keda.sh/v1alpha1": "@kubernetes-models/keda/keda.sh/v1alpha1",
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
  "gateway.networking.k8s.io/v1": "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1",
};

let text = "";
for await (const chunk of process.stdin) text += chunk;
const objects = JSON.parse(text);

async function invalid({ apiVersion, kind, ...rest }) {
  const models = await import(`${PACKAGES[apiVersion]}/${kind}`);
  try {
    new models[kind](rest).validate();
    return "";
  } catch (error) {
    return String(error.message);
  }
}

function unknown(list) {
  const lines = list.map(({ apiVersion, kind, ...rest }, i) => [
    `import { type I${kind} as T${i} } from "${PACKAGES[apiVersion]}/${kind}";`,
    `export const o${i}: T${i} = ${JSON.stringify({ apiVersion, kind, ...rest })};`,
  ]);
  writeFileSync("objects.ts", lines.flat().join("\n"));
  const program = ts.createProgram(["objects.ts"], {
    noEmit: true,
    strict: true,
    skipLibCheck: true,
    types: [],
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    target: ts.ScriptTarget.ES2022,
  });
  const found = list.map(() => "");
  for (const each of ts.getPreEmitDiagnostics(program)) {
    const message = ts.flattenDiagnosticMessageText(each.messageText, " ");
    if (!each.file?.fileName.endsWith("objects.ts")) throw new Error(message);
    const line = each.file.getLineAndCharacterOfPosition(each.start).line;
    found[Math.floor(line / 2)] += `${message} `;
  }
  return found;
}

const types = unknown(objects);
const found = [];
for (const [i, each] of objects.entries()) found.push(`${await invalid(each)} ${types[i]}`.trim());
console.log(JSON.stringify(found));
