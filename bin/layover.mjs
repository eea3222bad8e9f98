#!/usr/bin/env node
// Plain JavaScript, so that an old Node can say what is missing instead of failing on the first type.
const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
if (major < 24 || (major === 24 && minor < 15)) {
  console.error(
    `layover needs Node 24.15 or newer, this is ${process.version}. It comes with the development packages: npm ci --include=dev`,
  )
  process.exit(1)
}
await import('../src/main.ts')
