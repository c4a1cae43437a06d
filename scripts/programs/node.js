// Worker threads that hand memory over, child processes that are forked and spawned, streams, compression, cryptography.
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const { fork, execFileSync, spawn } = require('child_process');
const { createHash } = require('crypto');
const zlib = require('zlib');

function work(seed) {
  const map = new Map();
  for (let i = 0; i < 60000; i++) map.set('key ' + (i * 7919 % 10007), { i, text: String(i * seed) });
  const text = JSON.stringify([...map]);
  const packed = zlib.deflateSync(Buffer.from(text));
  const hashes = createHash('sha256');
  for (let i = 0; i < 20000; i++) hashes.update(createHash('md5').update('x' + i * seed).digest());
  const buffers = [];
  for (let i = 0; i < 30000; i++) buffers[i % 100] = Buffer.alloc(5000 + i % 9000, i);
  return hashes.digest('hex') + ' ' + text.length + ' ' + packed.length + ' ' + buffers.length;
}

async function main() {
  const workers = [1, 2, 3, 4].map((seed) => new Promise((resolve, reject) => {
    const worker = new Worker(__filename, { workerData: seed });
    worker.on('message', (message) => resolve(message.said + ' ' + message.bytes.byteLength));
    worker.on('error', reject);
  }));
  const forked = new Promise((resolve) => {
    const child = fork(__filename, ['child']);
    child.on('message', (said) => { child.disconnect(); resolve(said); });
  });
  const spawned = new Promise((resolve) => {
    const child = spawn('sh', ['-c', 'read line; echo "got $line"; kill -TERM $$'], { env: { PATH: process.env.PATH } });
    let said = '';
    child.stdout.on('data', (data) => { said += data; });
    child.on('close', (code, signal) => resolve(said.trim() + ' ' + code + ' ' + signal));
    child.stdin.end('one line\n');
  });
  for (const said of await Promise.all([...workers, forked, spawned])) console.log(said);
  console.log(execFileSync(process.execPath, ['-e', 'console.log([...Array(50000).keys()].map(String).join("").length)'], { encoding: 'utf8' }).trim());
  const ended = await Promise.all([1, 2, 3].map(() => new Promise((resolve) => {
    const worker = new Worker('setInterval(() => Buffer.alloc(100000), 1)', { eval: true });
    worker.on('online', () => worker.terminate());
    worker.on('exit', (code) => resolve(code));
  })));
  console.log('terminated', ended.join(' '));
  console.error('to standard error');
  process.exitCode = 3;
}

if (process.argv[2] === 'child') {
  process.send(work(9));
} else if (isMainThread) {
  main();
} else {
  const bytes = new Uint8Array(1 << 20).buffer;
  parentPort.postMessage({ said: work(workerData), bytes }, [bytes]);
}
