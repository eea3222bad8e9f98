import { expect, it } from 'vitest'
import {
  type Client,
  containerdClient,
  containerdForms,
  type Form,
  skopeoClient,
  skopeoForms,
} from './harness/forms.ts'
import { openLink } from './harness/link.ts'
import { until } from './harness/process.ts'
import { startRegistry } from './harness/registry.ts'
import { digestsOf, large } from './harness/samples.ts'
import { layoverBefore } from './harness/setup.ts'

const MiB = 1024 * 1024
const [hostsToml] = containerdForms as [Form]
const [mirror] = skopeoForms as [Form]
const size = [...large.blobs, ...large.manifests].reduce((sum, { bytes }) => sum + bytes.length, 0)

const breaks = [
  { how: 'its connections are reset twice', outageMs: 0 },
  { how: 'it is unreachable for a second', outageMs: 1000 },
]

it.each(breaks)(
  'F-1: containerd and skopeo notice nothing while upstream sends a layer and $how',
  async ({ outageMs }) => {
    const registry = await startRegistry()
    await registry.push('team/large', 'v1', large)
    const link = await openLink({ to: registry.host, bytesPerSecond: 8 * MiB })
    const layover = await layoverBefore({ upstream: { url: link.url, insecure: true } })
    const clients: Client[] = []
    try {
      clients.push(await containerdClient(hostsToml, layover.host), await skopeoClient(mirror, layover.host))
      const pulls = Promise.all(clients.map(client => client.pull('team/large', 'v1')))
      for (const share of [0.3, 0.7]) {
        await until(() => link.bytes() > share * size)
        link.sever()
        if (outageMs > 0) await new Promise(resolve => setTimeout(resolve, outageMs))
        link.restore()
      }
      for (const { top, digests } of await pulls) {
        expect(top).toBe(large.top.digest)
        expect([...digestsOf(large)].filter(digest => !digests.has(digest))).toEqual([])
      }
      // Resumed where it was, not begun again: twice what was on its way at the break is all that may be lost.
      expect(link.bytes()).toBeLessThan(1.25 * size)
    } finally {
      await Promise.all(clients.map(client => client.close()))
      await layover.close()
      await link.close()
      await registry.close()
    }
  },
)
