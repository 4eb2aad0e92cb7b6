/** A question as code that asks the same. */

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const indent = (value) => JSON.stringify(value, null, 4).replaceAll("\n", "\n    ");

/** Return a command for curl. */
export function curl(request, hasKey) {
  const lines = [`curl ${location.origin}/v1/chat/completions`, `-H ${shell("Content-Type: application/json")}`];
  if (hasKey) lines.push('-H "Authorization: Bearer $COI_SERVE_KEY"');
  return [...lines, `-d ${shell(JSON.stringify(request, null, 1))}`].join(" \\\n  ");
}

/** Return a program for OpenAI's client in Python; JSON's texts, numbers, lists and objects are Python's, too. */
export function python(request, hasKey) {
  const { model, messages, coi, ...settings } = request;
  const named = Object.entries(settings).map(([name, value]) => `    ${name}=${JSON.stringify(value)},`);
  return [
    ...(hasKey ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${location.origin}/v1", api_key=${hasKey ? 'os.environ["COI_SERVE_KEY"]' : '"none"'})`,
    "reply = client.chat.completions.create(",
    `    model=${JSON.stringify(model)},`,
    `    messages=${JSON.stringify(messages)},`,
    `    extra_body={"coi": ${indent(coi)}},`,
    ...named,
    ")",
    'for step in reply.choices[0].coi["steps"]:',
    '    print(step["output"])',
  ].join("\n");
}
