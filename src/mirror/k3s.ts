import { authorityOf, type Client, commonNotes, isHttp, type MirrorOptions, type NodeFile, originOf } from './client.ts'

export const k3s: Client = options => setup('k3s', options)
export const rke2: Client = options => setup('rke2', options)

/** https://docs.k3s.io/installation/private-registry */
function setup(distribution: 'k3s' | 'rke2', options: MirrorOptions): ReturnType<Client> {
  const directory = `/etc/rancher/${distribution}`
  const files: NodeFile[] = [{ path: `${directory}/registries.yaml`, text: registriesYaml(options) }]
  if (options.airGapped)
    files.push({
      path: `${directory}/config.yaml (merge into what is there)`,
      text: 'disable-default-registry-endpoint: true\n',
    })
  return { files, notes: [...notes(distribution, options), ...commonNotes(options)] }
}

function registriesYaml(options: MirrorOptions): string {
  const names = options.everyUpstream ? ['*'] : options.upstreams.map(({ name }) => name)
  // Quoted: a bare * is an alias in YAML.
  const mirrors = names.map(name => `  "${name}":\n    endpoint:\n      - "${originOf(options)}"\n`).join('')
  const configs =
    options.ca === undefined || isHttp(options)
      ? ''
      : `configs:\n  "${authorityOf(options)}":\n    tls:\n      ca_file: "${options.ca}"\n`
  return `mirrors:\n${mirrors}${configs}`
}

function notes(distribution: 'k3s' | 'rke2', options: MirrorOptions): string[] {
  return [
    options.airGapped
      ? 'Fallback: none, by disable-default-registry-endpoint.'
      : 'Fallback: each request that Layover does not answer with content goes to the registry of the image.',
    ...(options.everyUpstream
      ? [
          'The quoted "*" covers every registry that is not listed; releases since January 2024 know it, for older ones use --upstream.',
        ]
      : ['A registry that is not listed here is pulled directly.']),
    distribution === 'k3s'
      ? 'Restart afterwards, on every node: systemctl restart k3s, or k3s-agent.'
      : 'Restart afterwards, on every node: systemctl restart rke2-server, or rke2-agent.',
  ]
}
