/** One authentication challenge. The scheme and the parameter names are lower case, values are unquoted. */
export type Challenge = { readonly scheme: string; readonly parameters: ReadonlyMap<string, string> }

// More than any registry sends; what is longer is ignored instead of scanned.
const maxLength = 8 * 1024

const tokenCharacter = /[!#$%&'*+\-.^_`|~0-9A-Za-z]/
const token68 = /^[A-Za-z0-9\-._~+/]+=*$/

/**
 * The challenges of all `WWW-Authenticate` lines, in order. Malformed parts are skipped; more than 8 KiB gives none. Linear time:
 * the scanner only moves forward (P-86).
 * https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1
 */
export function parseChallenges(header: string | readonly string[] | undefined): readonly Challenge[] {
  if (header === undefined) return []
  const lines = typeof header === 'string' ? [header] : header
  if (lines.reduce((sum, line) => sum + line.length, 0) > maxLength) return []
  return lines.flatMap(line => new Scanner(line).challenges())
}

class Scanner {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  challenges(): Challenge[] {
    const found: { scheme: string; parameters: Map<string, string> }[] = []
    while ((this.#skip(' \t,'), this.#at < this.#text.length)) {
      const word = this.#word()
      if (word === '') {
        this.#at++
        continue
      }
      const spaces = this.#skip(' \t')
      const current = found.at(-1)
      if (this.#peek() === '=' && current !== undefined) {
        this.#parameter(current.parameters, word)
      } else {
        const challenge = { scheme: word.toLowerCase(), parameters: new Map<string, string>() }
        found.push(challenge)
        if (spaces > 0) this.#skipToken68()
      }
    }
    return found
  }

  #parameter(parameters: Map<string, string>, name: string): void {
    this.#at++
    this.#skip(' \t')
    const value = this.#peek() === '"' ? this.#quoted() : this.#bare()
    // The first of two equal names counts; a second could only confuse.
    if (!parameters.has(name.toLowerCase())) parameters.set(name.toLowerCase(), value)
  }

  #quoted(): string {
    let value = ''
    for (this.#at++; this.#at < this.#text.length; this.#at++) {
      const character = this.#peek()
      if (character === '"') break
      if (character === '\\') this.#at++
      value += this.#peek()
    }
    this.#at++
    return value
  }

  /** An unquoted value up to the next comma or blank: more than RFC 9110 allows, because URLs are sent without quotes. */
  #bare(): string {
    const start = this.#at
    while (this.#at < this.#text.length && !', \t'.includes(this.#peek())) this.#at++
    return this.#text.slice(start, this.#at)
  }

  /** `Negotiate dG9rZW4=`: one opaque word instead of parameters. */
  #skipToken68(): void {
    const start = this.#at
    const word = this.#bare()
    const end = this.#at
    this.#skip(' \t')
    const isLast = this.#at >= this.#text.length || this.#peek() === ','
    this.#at = isLast && token68.test(word) ? end : start
  }

  #word(): string {
    const start = this.#at
    while (this.#at < this.#text.length && tokenCharacter.test(this.#peek())) this.#at++
    return this.#text.slice(start, this.#at)
  }

  #peek(): string {
    return this.#text.charAt(this.#at)
  }

  #skip(characters: string): number {
    const start = this.#at
    while (this.#at < this.#text.length && characters.includes(this.#peek())) this.#at++
    return this.#at - start
  }
}
