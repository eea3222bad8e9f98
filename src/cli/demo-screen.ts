/** Where the demo writes; a terminal gets colour and a line that moves. */
export type ScreenOutput = { write(text: string): unknown; readonly isTTY?: boolean | undefined }

/** What one phase of the demo measured: from the clients' side, and from the registry's ledger. */
export type Phase = {
  readonly name: string
  readonly ms: number
  readonly clients: number
  readonly servedBytes: number
  readonly servedRequests: number
  /** Median over all layers of all clients. */
  readonly firstByteMs: number
  /** What did not hash to its name. */
  readonly wrong: readonly string[]
  readonly upstreamBytes: number
  readonly upstreamGets: number
  readonly upstreamBlobGets: number
}

export type Claim = { readonly text: string; readonly held: boolean }

export type DemoScreen = {
  intro(facts: {
    readonly clients: number
    readonly layers: number
    readonly imageBytes: number
    readonly bytesPerSecond: number
  }): void
  /** A step that knows how many bytes it will take. */
  progress(story: string, totalBytes: number): { add(bytes: number): void; done(ms: number): void }
  table(phases: readonly Phase[]): void
  claims(claims: readonly Claim[]): void
  /** Where the run can be looked at in a browser. */
  page(url: string): void
  failure(error: unknown): void
  close(): void
}

const redrawMs = 100

/** Colour and movement only where somebody looks at a terminal and NO_COLOR is not set. https://no-color.org */
export function openScreen(
  output: ScreenOutput,
  environment: Readonly<Record<string, string | undefined>>,
): DemoScreen {
  const isTerminal = output.isTTY === true
  const paint = painter(isTerminal && (environment['NO_COLOR'] ?? '') === '')
  const line = (text = ''): unknown => output.write(`${text}\n`)
  let step = 0
  let timer: NodeJS.Timeout | undefined
  const stopDrawing = (): void => {
    clearInterval(timer)
    timer = undefined
  }
  return {
    intro({ clients, layers, imageBytes, bytesPerSecond }) {
      line(paint.bold('Layover demo'))
      line(
        `An image of ${bytes(imageBytes)} in ${layers} layers, a registry behind a link of ${bytes(bytesPerSecond)}/s, ${clients} clients.`,
      )
      line()
    },
    progress(story, totalBytes) {
      step += 1
      const title = `${step}. ${story}`.padEnd(50)
      let done = 0
      const draw = (): unknown =>
        output.write(`\r  ${title} ${String(Math.floor((100 * done) / totalBytes)).padStart(3)} %`)
      if (isTerminal) timer = setInterval(draw, redrawMs)
      return {
        add(size) {
          done += size
        },
        done(ms) {
          stopDrawing()
          line(`${isTerminal ? '\r' : ''}  ${title} ${milliseconds(ms).padStart(8)}`)
        },
      }
    },
    table(phases) {
      line()
      for (const row of rows(phases)) line(row.map((cell, column) => aligned(cell, column)).join(''))
      line()
      const served = total(phases, ({ servedBytes }) => servedBytes)
      const fetched = total(phases, ({ upstreamBytes }) => upstreamBytes)
      const share = (100 * (served - fetched)) / served
      line(
        `  ${paint.bold(`saved ${bytes(served - fetched)} of ${bytes(served)}`)} on the link to the registry: ${share.toFixed(1)} %`,
      )
    },
    claims(claims) {
      line()
      for (const { text, held } of claims) line(`  ${held ? paint.green('ok ') : paint.red('NOT')}  ${text}`)
    },
    page(url) {
      line()
      line(`  ${paint.bold(`${url}/`)} shows what was saved, until Ctrl-C.`)
    },
    failure(error) {
      line()
      line(`  ${paint.red('NOT')}  ${error instanceof Error ? error.message : String(error)}`)
    },
    close() {
      stopDrawing()
    },
  }
}

function rows(phases: readonly Phase[]): readonly (readonly string[])[] {
  const row = (title: string, cell: (phase: Phase) => string): readonly string[] => [title, ...phases.map(cell)]
  return [
    row('', ({ name }) => name),
    row('pulls', ({ clients }) => String(clients)),
    row('served to clients', ({ servedBytes }) => bytes(servedBytes)),
    row('fetched from the registry', ({ upstreamBytes }) => bytes(upstreamBytes)),
    row('GETs at the registry', ({ upstreamGets }) => String(upstreamGets)),
    row('hit rate', ({ servedRequests, upstreamGets }) => percent(1 - upstreamGets / servedRequests)),
    row('first byte of a layer (median)', ({ firstByteMs }) => milliseconds(firstByteMs)),
    row('last client done after', ({ ms }) => milliseconds(ms)),
  ]
}

const aligned = (cell: string, column: number): string => (column === 0 ? `  ${cell.padEnd(32)}` : cell.padStart(18))
const total = (phases: readonly Phase[], value: (phase: Phase) => number): number =>
  phases.reduce((sum, phase) => sum + value(phase), 0)
const percent = (share: number): string => `${(100 * share).toFixed(1)} %`
const milliseconds = (ms: number): string => (ms < 1000 ? `${ms.toFixed(1)} ms` : `${(ms / 1000).toFixed(2)} s`)

function bytes(size: number): string {
  if (size < 1024) return `${size} B`
  return size < 1024 * 1024 ? `${(size / 1024).toFixed(1)} KiB` : `${(size / 1024 / 1024).toFixed(1)} MiB`
}

type Paint = Record<'bold' | 'green' | 'red', (text: string) => string>

function painter(isColoured: boolean): Paint {
  const code = (open: number) => (text: string) => (isColoured ? `\x1B[${open}m${text}\x1B[0m` : text)
  return { bold: code(1), green: code(32), red: code(31) }
}
