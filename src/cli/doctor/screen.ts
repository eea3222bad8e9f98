import type { Finding, Verdict } from './check.ts'

const colours: Readonly<Record<Verdict, string>> = { ok: '32', warn: '33', FAIL: '31' }

/** Aligned lines for people: `ok    data directory   …`, and beneath what to do. */
export class FindingsScreen {
  readonly #nameWidth: number
  readonly #isColoured: boolean

  constructor(options: { readonly names: readonly string[]; readonly isColoured: boolean }) {
    this.#nameWidth = Math.max(...options.names.map(name => name.length))
    this.#isColoured = options.isColoured
  }

  /** What is to be done about several findings in a row is said once, beneath the last. */
  lines(findings: readonly Finding[]): string {
    return findings
      .map((finding, index) => this.#line(finding, findings[index + 1]?.advice !== finding.advice))
      .join('')
  }

  summary(findings: readonly Finding[]): string {
    const count = (verdict: Verdict): number => findings.filter(finding => finding.verdict === verdict).length
    return `\n${count('ok')} ok, ${count('warn')} warn, ${count('FAIL')} FAIL\n`
  }

  #line({ verdict, check, found, advice }: Finding, isAdvised: boolean): string {
    const padding = ' '.repeat(6 - verdict.length)
    const first = `${this.#paint(verdict)}${padding}${check.padEnd(this.#nameWidth)}  ${oneLine(found)}\n`
    if (advice === undefined || !isAdvised) return first
    return `${first}${' '.repeat(6 + this.#nameWidth + 2)}→ ${oneLine(advice)}\n`
  }

  #paint(verdict: Verdict): string {
    return this.#isColoured ? `\u001B[${colours[verdict]}m${verdict}\u001B[0m` : verdict
  }
}

/** What others said goes to a terminal: no control characters. */
const oneLine = (text: string): string => text.replaceAll(/[\u0000-\u001F\u007F-\u009F\u2028\u2029]+/g, ' ')
