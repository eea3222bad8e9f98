import { carryOut, stepsBack, stepsTo } from '../../src/cli/node/own-files.ts'
import { loopTexts } from './node-texts.ts'

// Puts two texts in place in turn, and now and then takes them back, until somebody kills it.
const [root = ''] = process.argv.slice(2)
const path = 'docker.io/hosts.toml'
process.stdout.write('started\n')
for (let round = 0; ; round++) {
  for (const text of loopTexts) for (const step of stepsTo(root, [{ path, text }])) carryOut(root, step)
  if (round % 3 === 0) for (const step of stepsBack(root)) carryOut(root, step)
}
