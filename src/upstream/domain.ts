import { isIP } from 'node:net'

/**
 * Names under which everybody can have a sub-domain: two names below one of these belong to different owners. Not the public suffix
 * list, only what registries are found under; second levels of country domains are covered by rule.
 */
const sharedSuffixes: readonly string[] = [
  'amazonaws.com amazonaws.com.cn cloudfront.net elb.amazonaws.com on.aws azurecr.io azurecr.cn',
  'azurewebsites.net azureedge.net cloudapp.net windows.net azure.com pkg.dev gcr.io run.app appspot.com',
  'googleapis.com web.app firebaseapp.com github.io gitlab.io jfrog.io herokuapp.com vercel.app netlify.app',
  'fly.dev onrender.com pages.dev workers.dev r2.dev r2.cloudflarestorage.com ngrok.io ngrok.app',
  'ngrok-free.app digitaloceanspaces.com ondigitalocean.app scw.cloud ovh.net oraclecloud.com aliyuncs.com',
  'myqcloud.com myhuaweicloud.com nip.io sslip.io duckdns.org dyndns.org',
  // Inside of a cluster or a cloud, neighbours are other tenants.
  'cluster.local service.consul compute.internal ec2.internal',
].flatMap(line => line.split(' '))
const countrySecondLevels: ReadonlySet<string> = new Set(
  'ac co com edu gen go gob gov gouv id info ltd me mil ne net nom or org plc sch web'.split(' '),
)

/**
 * The part of a host name that one owner registered: `auth.docker.io` → `docker.io`, `a.b.co.uk` → `b.co.uk`.
 * Undefined for addresses, single labels, and names that are themselves a public suffix.
 */
export function registrableDomain(hostname: string): string | undefined {
  const labels = hostname.toLowerCase().replace(/\.$/, '').split('.')
  if (isIP(hostname) !== 0 || hostname.startsWith('[') || labels.length < 2 || labels.includes('')) return undefined
  const name = labels.join('.')
  if (sharedSuffixes.includes(name)) return undefined
  // How deep an owner's names begin differs by provider and region: only the very same name is the same owner there.
  if (sharedSuffixes.some(suffix => name.endsWith(`.${suffix}`))) return name
  const [second = '', top = ''] = labels.slice(-2)
  const suffixLabels = top.length === 2 && countrySecondLevels.has(second) ? 2 : 1
  return labels.length > suffixLabels ? labels.slice(-suffixLabels - 1).join('.') : undefined
}
