/** What the preview reads of a panel in the committed JSON. */
export type Panel = {
  readonly type: string
  readonly title: string
  readonly gridPos: GridPos
  readonly targets?: readonly Target[]
  readonly panels?: readonly Panel[]
  readonly fieldConfig?: { readonly defaults: Defaults; readonly overrides: readonly Override[] }
}

export type GridPos = { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
export type Target = {
  readonly refId: string
  readonly expr: string
  readonly legendFormat: string
  readonly instant?: boolean
}
export type Step = { readonly value: number | null; readonly color: string }
export type Mapping = { readonly options: Readonly<Record<string, { readonly text: string; readonly color: string }>> }

export type Defaults = {
  readonly unit?: string
  readonly decimals?: number
  readonly min?: number
  readonly max?: number
  readonly noValue?: string
  readonly thresholds?: { readonly steps: readonly Step[] }
  readonly mappings?: readonly Mapping[]
  readonly custom?: {
    readonly drawStyle?: string
    readonly stacking?: { readonly mode?: string }
    readonly thresholdsStyle?: { readonly mode?: string }
  }
}

export type Override = {
  readonly matcher: { readonly options?: unknown }
  readonly properties: readonly { readonly id: string; readonly value?: unknown }[]
}

export type Dashboard = { readonly title: string; readonly panels: readonly Panel[] }

/** One line, bar or number of a panel. */
export type Series = {
  readonly name: string
  readonly refId: string
  readonly labels: Readonly<Record<string, string>>
  readonly times: readonly number[]
  readonly values: readonly number[]
}

/** The defaults of a panel with what an override says of one name. */
export function settingsOf(
  { fieldConfig }: Panel,
  name: string,
): Defaults & { readonly colour?: string; readonly displayName?: string } {
  const own = (fieldConfig?.overrides ?? []).filter(({ matcher }) => matcher.options === name)
  const said = Object.fromEntries(own.flatMap(({ properties }) => properties).map(({ id, value }) => [id, value]))
  const { color, ...rest } = said as { color?: { fixedColor: string } } & Defaults
  return { ...fieldConfig?.defaults, ...rest, ...(color && { colour: color.fixedColor }) }
}
