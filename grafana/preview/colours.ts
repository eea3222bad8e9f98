import type { Step } from './panel.ts'

const named: Readonly<Record<string, string>> = {
  green: '#73bf69',
  'light-green': '#b0dba9',
  yellow: '#f2cc0c',
  blue: '#5794f2',
  'light-blue': '#a6c8f9',
  orange: '#ff9830',
  red: '#f2495c',
  purple: '#b877d9',
  text: '#d8d9e6',
}
const palette = [
  '#73bf69',
  '#5794f2',
  '#ff9830',
  '#b877d9',
  '#f2cc0c',
  '#5ad1cd',
  '#f2495c',
  '#a6c8f9',
  '#e0b400',
  '#8ab8ff',
  '#d683ce',
  '#96d98d',
]

export const colourOf = (name: string): string => named[name] ?? name

/** Lines keep their place in the palette, so that neighbours differ. */
export const paletteColour = (index: number): string => palette[index % palette.length] ?? '#fff'

export function thresholdColour(value: number, steps: readonly Step[]): string {
  const reached = steps.filter(step => step.value === null || value >= step.value)
  return colourOf(reached.at(-1)?.color ?? 'text')
}
