/** What node-loop.ts writes: large, so that a write has a middle. */
export const loopTexts = ['a', 'b'].map(letter => `# ${letter.repeat(300_000)}\n`)
