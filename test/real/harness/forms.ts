import { type Containerd, startContainerd } from './containerd.ts'
import { upstreamName } from './setup.ts'
import { prepareSkopeo, type Skopeo } from './skopeo.ts'

/** One way in which a client can be told about Layover. `host` is `127.0.0.1:<port>` of Layover. */
export type Form = {
  readonly form: string
  /** What stands before the repository in the image name. */
  readonly name: (host: string) => string
  /** hosts.toml of containerd, registries.conf of skopeo; absent: the client is not configured at all. */
  readonly configuration?: (host: string) => string
  readonly flags?: readonly string[]
}

const pull = 'capabilities = ["pull", "resolve"]'
const plain = { flags: ['--plain-http'] }

export const containerdForms: readonly Form[] = [
  {
    form: 'hosts.toml, where it sends ns',
    name: () => upstreamName,
    configuration: host => `[host."http://${host}"]\n${pull}\n`,
  },
  {
    form: 'hosts.toml with a path, which it puts before /v2/',
    name: () => upstreamName,
    configuration: host => `[host."http://${host}/${upstreamName}"]\n${pull}\n`,
  },
  {
    form: 'hosts.toml with override_path, where path and ns say the same',
    name: () => upstreamName,
    configuration: host => `[host."http://${host}/v2/${upstreamName}"]\n${pull}\noverride_path = true\n`,
  },
  { form: 'a prefix in the image name', name: host => `${host}/${upstreamName}`, ...plain },
  { form: 'nothing but its address: the default upstream', name: host => host, ...plain },
]

const mirror = (location: string): string => `[[registry]]
prefix = "${upstreamName}"
location = "${upstreamName}"
[[registry.mirror]]
location = "${location}"
insecure = true
`
const insecure = { flags: ['--src-tls-verify=false'] }

export const skopeoForms: readonly Form[] = [
  { form: 'a mirror at its root', name: () => upstreamName, configuration: mirror },
  {
    form: 'a mirror with a path prefix',
    name: () => upstreamName,
    configuration: host => mirror(`${host}/${upstreamName}`),
  },
  { form: 'a prefix in the image name', name: host => `${host}/${upstreamName}`, ...insecure },
  { form: 'nothing but its address: the default upstream', name: host => host, ...insecure },
]

/** A client with an empty store that pulls one image and tells the digests of everything it got and verified. */
export type Client = {
  /** Gives the digest of what the tag named, and every digest that arrived. Rejects with what the client said. */
  pull(
    repository: string,
    tag: string,
  ): Promise<{ readonly top: string | undefined; readonly digests: ReadonlySet<string> }>
  close(): Promise<void>
}

export async function containerdClient(form: Form, host: string): Promise<Client> {
  const containerd: Containerd = await startContainerd()
  if (form.configuration !== undefined) await containerd.configureHost(upstreamName, form.configuration(host))
  return {
    async pull(repository, tag) {
      const reference = `${form.name(host)}/${repository}:${tag}`
      const { code, stdout, stderr } = await containerd.pull(reference, '--all-platforms', ...(form.flags ?? []))
      if (code !== 0) throw new Error(`ctr images pull ${reference}: ${stderr}${stdout.slice(-500)}`)
      const top = (await containerd.images()).get(reference)
      return { top, digests: new Set(await containerd.content()) }
    },
    close: () => containerd.close(),
  }
}

export async function skopeoClient(form: Form, host: string): Promise<Client> {
  const skopeo: Skopeo = await prepareSkopeo(form.configuration?.(host))
  return {
    async pull(repository, tag) {
      const reference = `${form.name(host)}/${repository}:${tag}`
      const { code, stderr, copied } = await skopeo.copy(reference, ...(form.flags ?? []))
      if (code !== 0) throw new Error(`skopeo copy ${reference}: ${stderr}`)
      return copied()
    },
    close: () => skopeo.close(),
  }
}
