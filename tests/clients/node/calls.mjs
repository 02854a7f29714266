// How a tour in JavaScript tries its calls: each in turn, with a line about each.

export async function attempt(name, call) {
  try {
    const found = await call();
    console.log(`ok ${name}`);
    return found;
  } catch (error) {
    const answer = error?.response?.data ?? error?.outcome ?? "";
    const why = `${error?.message ?? error} ${answer && JSON.stringify(answer)}`;
    console.log(`failed ${name}: ${why.replace(/\s+/g, " ").slice(0, 400)}`);
    return undefined;
  }
}

export function require(holds) {
  if (!holds) throw new Error("not what was asked for");
}
