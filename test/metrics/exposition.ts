export type Family = { readonly type: string; readonly help: string | undefined }
export type Sample = {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

/** Reads the Prometheus text format, as far as these tests need it: no escapes in label values. */
export function parseExposition(text: string): {
  readonly families: ReadonlyMap<string, Family>
  readonly samples: readonly Sample[]
} {
  const families = new Map<string, Family>()
  const help = new Map<string, string>()
  const samples: Sample[] = []
  for (const line of text.split('\n')) {
    const [, comment, subject = '', rest = ''] = /^# (HELP|TYPE) (\S+) (.*)$/.exec(line) ?? []
    if (comment === 'HELP') help.set(subject, rest)
    else if (comment === 'TYPE') families.set(subject, { type: rest, help: help.get(subject) })
    else if (line !== '' && !line.startsWith('#')) samples.push(parseSample(line))
  }
  return { families, samples }
}

function parseSample(line: string): Sample {
  const [, name, labels = '', value] = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? []
  if (name === undefined) throw new Error(`not a sample: ${line}`)
  const pairs = [...labels.matchAll(/([a-zA-Z_][a-zA-Z0-9_]*)="([^"]*)"/g)].map(([, label = '', text = '']) => [
    label,
    text,
  ])
  return { name, labels: Object.fromEntries(pairs), value: Number(value) }
}

const notBaseUnits = ['milliseconds', 'ms', 'minutes', 'hours', 'kilobytes', 'megabytes', 'kib', 'mib', 'percent']

/** The rules of https://prometheus.io/docs/practices/naming/ that `promtool check metrics` knows; one line for each breach. */
export function namingFaults(families: ReadonlyMap<string, Family>): readonly string[] {
  return [...families].flatMap(([name, { type, help }]) => {
    const faults: string[] = []
    if (!help) faults.push('no help text')
    if (type === 'counter' && !name.endsWith('_total')) faults.push('a counter ends in _total')
    if (type !== 'counter' && name.endsWith('_total')) faults.push('only a counter ends in _total')
    for (const unit of notBaseUnits) if (name.split('_').includes(unit)) faults.push(`not a base unit: ${unit}`)
    if (!/^[a-z][a-z0-9_]*$/.test(name)) faults.push('not snake_case')
    return faults.map(fault => `${name}: ${fault}`)
  })
}
