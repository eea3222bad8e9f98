/** What containerd's config.toml says about certs.d. */
export type RegistryConfig = {
  /** The directories of `config_path`; undefined: not set. */
  readonly configPath: readonly string[] | undefined
  /** `registry.mirrors`, which containerd refuses beside config_path. */
  readonly hasMirrors: boolean
  /** `imports`: other files may say more. */
  readonly hasImports: boolean
}

const registryTable =
  /^plugins\.(?:io\.containerd\.grpc\.v1\.cri|io\.containerd\.cri\.v1\.images|cri)\.registry(?<below>\..*)?$/

/** Reads the few lines of a config.toml that matter here; whatever else is in it is passed over. */
export function readRegistryConfig(toml: string): RegistryConfig {
  let table = ''
  let configPath: readonly string[] | undefined
  let hasMirrors = false
  let hasImports = false
  for (const line of toml.split('\n')) {
    const [, header] = /^\s*\[([^[\]]+)\]\s*(?:#.*)?$/.exec(line) ?? []
    if (header !== undefined) table = header.replaceAll(/["'\s]/g, '')
    const registry = registryTable.exec(table)
    hasMirrors ||= registry?.groups?.['below']?.startsWith('.mirrors.') === true
    hasImports ||= table === '' && /^\s*imports\s*=\s*\[\s*["']/.test(line)
    const [, value] = /^\s*config_path\s*=\s*["']([^"']*)["']/.exec(line) ?? []
    if (value !== undefined && registry !== null && registry.groups?.['below'] === undefined)
      configPath = value.split(':').filter(each => each !== '')
  }
  return { configPath: configPath?.length === 0 ? undefined : configPath, hasMirrors, hasImports }
}

export type ConfigLook = {
  /** Path and text of config.toml; text undefined: no such file. */
  readonly path: string
  readonly text: string | undefined
  readonly root: string
  readonly containerdVersion: string | undefined
}

/** Whether containerd reads certs.d, and what to do when it does not: one line. */
export function adviceOn({ path, text, root, containerdVersion }: ConfigLook): string {
  const byDefault = /^v?(?:2\.(?:[2-9]|\d\d)|[3-9])/.test(containerdVersion ?? '')
  const { configPath, hasMirrors, hasImports } = readRegistryConfig(text ?? '')
  const elsewhere = hasImports ? ' It imports other files: look there too.' : ''
  if (configPath?.includes(root) === true)
    return hasMirrors
      ? `${path} sets config_path and registry.mirrors: containerd refuses the two together. Remove registry.mirrors and restart containerd.`
      : `${path} sets config_path to ${root}: containerd reads what was written.`
  if (configPath !== undefined)
    return `${path} sets config_path to ${configPath.join(':')}: containerd reads that, not ${root}. Give it as --root, or change config_path and restart containerd.`
  if (byDefault) return `containerd ${containerdVersion} reads certs.d by itself.`
  const subject = text === undefined ? `${path} is not there` : `${path} does not set config_path`
  const remedy = `set config_path = "${root}" under [plugins."io.containerd.cri.v1.images".registry] (2.0, 2.1) or [plugins."io.containerd.grpc.v1.cri".registry] (1.x) and restart containerd once`
  return `${subject}: containerd 2.2 and later read certs.d by themselves; for an older one ${remedy}.${elsewhere}`
}
