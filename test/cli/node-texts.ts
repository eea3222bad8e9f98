/** What node-loop.ts writes: large, so that a write has a middle. */
export const loopTexts = ['a', 'b'].map(letter => `# ${letter.repeat(4_000_000)}\n`)
