// AppAuth-JS is published for bundlers: its files import each other without an ending, which Node.js alone does not find.
import { register } from "node:module";

const hook = `export const resolve = (name, context, next) =>
  next(name.startsWith(".") && !/\\.m?js$/.test(name) ? \`\${name}.js\` : name, context);`;
register(`data:text/javascript,${encodeURIComponent(hook)}`);
