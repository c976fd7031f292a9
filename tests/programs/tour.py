# SPDX-License-Identifier: LGPL-2.1-or-later
# A tour of the standard library. Nothing here depends on the time of day, on addresses or on chance.
import array, ast, asyncio, base64, binascii, bisect, calendar, cmath, collections, configparser, contextlib
import copy, csv, dataclasses, datetime, decimal, difflib, dis, enum, fnmatch, fractions, functools, gc, glob
import hashlib, heapq, hmac, html.parser, inspect, io, ipaddress, itertools, json, logging, math, operator, os
import pickle, pprint, queue, random, re, select, shlex, shutil, signal, socket, sqlite3, statistics, string
import struct, subprocess, sys, tempfile, textwrap, threading, time, traceback, types, unicodedata
import urllib.parse, uuid, warnings, weakref, xml.dom.minidom, xml.etree.ElementTree, zipfile, zlib

stations = []


def station(function):
    stations.append(function)
    return function


@station
def numbers():
    print(2 ** 521 - 1, math.factorial(60), divmod(-7, 3), -7 // 2, 7 % -3, 1e308 * 10, 0.1 + 0.2, round(2.675, 2),
          hash(1.5))
    print(complex(1, 2) ** 3, cmath.sqrt(-4), float.fromhex('0x1.8p3'), (0.1).hex(), (255).to_bytes(2, 'little'),
          pow(3, -1, 11))
    print([math.gamma(x / 3) for x in range(1, 8)], math.comb(50, 20), math.isqrt(10 ** 40), math.fsum([0.1] * 10))
    print([round(f(0.7), 14) for f in (math.sin, math.cos, math.tan, math.asin, math.exp, math.log, math.erf,
          math.lgamma)])
    print(fractions.Fraction(355, 113) + 1, statistics.stdev([1, 2, 4, 8]), statistics.quantiles(range(50), n=5))
    with decimal.localcontext() as context:
        context.prec = 60
        print(decimal.Decimal(2).sqrt(), decimal.Decimal(1) / 7, decimal.Decimal('1.1').exp(),
              decimal.Decimal('1e-5').ln())
    random.seed(7)
    print([random.randrange(1000) for _ in range(8)], random.gauss(0, 1), random.sample(range(100), 5),
          random.choices('abc', k=6))
    print(int('zz', 36), f'{12345.678:>+15,.2f}|{255:#010x}|{1e-9:g}|{True:d}|{"x":*^7}', '%5.1f|%-4s|%o' % (2.25,
          'ab', 8))
    print(functools.reduce(operator.xor, (x * x for x in range(1000))), sum(1 for n in range(2,
          3000) if all(n % d for d in range(2, n))))


@station
def text():
    sentence = 'The quick brown fox — naïve café ΑΒΓ straße İ'
    print(sentence.upper(), sentence.casefold(), sentence.title(), sentence[::-1], sentence.encode('utf-16-le').hex())
    for encoding in ('utf-8', 'latin-1', 'utf-7', 'cp1252', 'shift_jis', 'big5', 'idna', 'punycode'):
        print(encoding, sentence.encode(encoding,
              'replace') if encoding != 'idna' else 'bücher.example'.encode(encoding))
    print(unicodedata.normalize('NFD', 'é').encode(), unicodedata.name('€'), re.findall(r'(?i)\b[a-z]*o[a-z]*',
          sentence))
    print(re.sub(r'(?P<a>\w)(?P<b>\w)', r'\g<b>\g<a>', sentence), re.split(r'(\s)', sentence, maxsplit=3),
          re.fullmatch('(a|ab)(c|bcd)(d*)', 'abcd').groups())
    print([n for n in range(2, 40) if not re.match(r'(11+?)\1+$', '1' * n)])
    print(textwrap.fill(sentence * 3, 30), string.Template('$who likes ${what}').substitute(who='he', what='it'))
    print('\n'.join(difflib.unified_diff('a b c d'.split(), 'a x c d e'.split(), lineterm='')),
          shlex.split("a 'b c' \"d\\\"e\""))
    print(sorted('pear Apple fig'.split(), key=str.lower), 'a,b,,c'.split(','), 'x'.join(map(str, range(9))),
          'tab\tx'.expandtabs(4))
    print('%r %a' % (sentence, sentence), sentence.translate({ord('o'): '0', ord('e'): None}), html.escape('<a & "b">'))


@station
def containers():
    counts = collections.Counter('abracadabra')
    print(counts.most_common(3), counts - collections.Counter('bar'), collections.OrderedDict(a=1, b=2),
          collections.deque(range(5), 3))
    grouped = collections.defaultdict(list)
    for word in 'one two three four five six'.split():
        grouped[len(word)].append(word)
    print(dict(grouped), {1, 2, 3} ^ {3, 4}, frozenset([1]) | {2}, [*range(10)][7:2:-2], {**{'a': 1}, 'b': 2})
    print(list(itertools.permutations('abc', 2))[:4], list(itertools.groupby('aabbb', key=ord))[0][0],
          [*itertools.accumulate(range(6))])
    print(sorted((x * 7919 % 1009 for x in range(3000)), reverse=True)[:6], heapq.nsmallest(3, [5, 1, 4, 2]),
          bisect.bisect([1, 3, 5], 3))
    print(array.array('d', [1, 2.5]).tobytes().hex(), memoryview(b'abcdef')[1:5:2].tolist(), struct.pack('<hI4sd?',
          -2, 7, b'ab', 1.5, True).hex())
    large = {i * 2654435761 % 2 ** 32: i for i in range(20000)}
    for key in list(large)[::3]:
        del large[key]
    print(len(large), sum(large.values()), copy.deepcopy([[1, [2]], {3: (4,)}]),
          pprint.pformat({'k' * 30: list(range(30)), 'z': ('a',) * 20}))


@dataclasses.dataclass(order=True, frozen=True)
class Point:
    x: int
    y: int = 0
    tags: tuple = dataclasses.field(default=(), compare=False)

    def __add__(self, other):
        return Point(self.x + other.x, self.y + other.y)


class Colour(enum.Flag):
    RED = enum.auto()
    GREEN = enum.auto()


class Meta(type):
    def __new__(mcs, name, bases, namespace, **kwargs):
        namespace['made_by'] = (mcs.__name__, sorted(kwargs))
        return super().__new__(mcs, name, bases, namespace)


@station
def language():
    class Thing(metaclass=Meta, colour=1):
        __slots__ = ('a', '__weakref__')

        def __getattr__(self, name):
            return f'no {name}'

    def generator():
        try:
            got = yield 1
            yield got * 2
            yield from (3, 4)
        finally:
            print('closed')

    def shape(value):
        match value:
            case [x, y, *rest] if rest:
                return f'{x} {y} and {len(rest)}'
            case {'kind': str(kind), **others}:
                return f'{kind} {others}'
            case Point(x=0) | Point(y=0):
                return 'on an axis'
            case int() | float() as number:
                return f'number {number}'
            case _:
                return 'other'

    thing = Thing()
    reference = weakref.ref(thing, lambda _: print('gone'))
    print(Thing.made_by, thing.b, reference() is thing, Point(1, 2) + Point(3), Point(1) < Point(1, 1),
          Colour.RED | Colour.GREEN)
    del thing
    running = generator()
    print(next(running), running.send(21), next(running))
    running.close()
    print([shape(v) for v in ([1, 2, 3], {'kind': 'k', 'n': 1}, Point(0, 9), 2.5, None)])
    try:
        try:
            [][1]
        except IndexError as error:
            raise ValueError('outer') from error
    except ValueError:
        print(re.sub(r'File ".*"', 'File', traceback.format_exc()))
    try:
        raise ExceptionGroup('group', [ValueError(1), TypeError(2), OSError(3)])
    except* (ValueError, OSError) as group:
        print(group.exceptions)
    except* TypeError as group:
        print('type', group.exceptions)

    def recurse(n):
        return recurse(n + 1)

    try:
        recurse(0)
    except RecursionError as error:
        print(error)
    cycle = []
    cycle.append(cycle)
    del cycle
    print(gc.collect() > 0, eval('(lambda *a, k=3, **kw: (a, k, kw))(1, 2, z=4)'),
          ast.dump(ast.parse('x = a if b else [c for d in e]')))
    namespace = {}
    exec(compile('def f(a, /, b, *, c=1):\n    global g\n    g = a + b + c\n    return locals()', 'made', 'exec'),
          namespace)
    print(namespace['f'](1, 2), namespace['g'], inspect.signature(namespace['f']))
    print(len([1 for _ in dis.get_instructions(language)]) > 100, contextlib.suppress(OSError).__class__.__name__)
    print(functools.lru_cache(None)(lambda n: n * 2)(4), functools.singledispatch(lambda x: 'any')(1),
          sys.getrecursionlimit())
    with contextlib.ExitStack() as stack:
        stack.callback(print, 'left')
        print('inside', type(stack).__name__, [x for x in zip(range(3), 'abc', strict=True)])


@station
def data():
    tree = {'a': [1, 2.5, None, True, {'x': 'é\u20ac'}], 'b': 'x' * 100}
    assert pickle.loads(pickle.dumps(tree)) == tree and json.loads(json.dumps(tree)) == tree
    print(json.dumps(tree, sort_keys=True, indent=1), len(pickle.dumps(tree, 4)))
    raw = bytes(i * i % 251 for i in range(40000)) + b'zeros' + bytes(20000)
    for level in (0, 1, 6, 9):
        packed = zlib.compress(raw, level)
        assert zlib.decompress(packed) == raw
        print(level, len(packed), hex(zlib.crc32(packed)), hex(zlib.adler32(raw)))
    for name in ('md5', 'sha1', 'sha256', 'sha3_256', 'blake2b'):
        print(name, hashlib.new(name, raw).hexdigest(), hmac.new(b'k', raw,
              name).hexdigest()[:8] if name != 'sha3_256' else '')
    print(base64.b85encode(raw[:20]), binascii.b2a_uu(raw[:20]), base64.b32encode(raw[:9]),
          uuid.uuid5(uuid.NAMESPACE_DNS, 'a.b'))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo('a/b.txt'), raw)
    print(zipfile.ZipFile(buffer).testzip(), len(buffer.getvalue()))
    document = '<r xmlns:n="u"><n:a k="v">t&amp;é</n:a>' + '<b/>tail' * 50 + '<!--c--></r>'
    root = xml.etree.ElementTree.fromstring(document)
    print(len(root), root[0].attrib, xml.etree.ElementTree.tostring(root)[:80],
          xml.dom.minidom.parseString(document).toprettyxml()[:120])
    try:
        xml.etree.ElementTree.fromstring('<a><b></a>')
    except xml.etree.ElementTree.ParseError as error:
        print(error)
    rows = list(csv.reader(io.StringIO('a,"b ""q"" c",d\r\n1,,3\r\n')))
    config = configparser.ConfigParser()
    config.read_string('[s]\nk = %(v)s!\nv = 1\n')
    print(rows, config['s']['k'], urllib.parse.urlsplit('http://u:p@h:8/p;x?q=1#f'), urllib.parse.quote('a b/é'),
          ipaddress.ip_network('10.0.0.0/30')[1])
    print(datetime.datetime(2024, 2, 29, 12) + datetime.timedelta(days=366), datetime.date(2024, 12,
          30).isocalendar(), calendar.month(2024, 2))
    base = sqlite3.connect(':memory:')
    base.create_function('twice', 1, lambda x: x * 2)
    base.execute('CREATE TABLE t (a, b)')
    base.executemany('INSERT INTO t VALUES (?, ?)', ((i, i * i) for i in range(500)))
    print(base.execute('SELECT count(*), sum(b), max(twice(a)) FROM t WHERE a % 3').fetchall())


@station
def system():
    with tempfile.TemporaryDirectory(dir='.') as directory:
        path = os.path.join(directory, 'file')
        with open(path, 'w', encoding='utf-8') as file:
            for i in range(2000):
                print(i, 'line é', file=file)
        with open(path, encoding='utf-8') as file:
            print(sum(len(line) for line in file), os.path.getsize(path), file.closed)
        shutil.copy(path, path + '2')
        print(sorted(os.listdir(directory)), len(glob.glob(directory + '/*')), fnmatch.filter(['a.py', 'b.c'], '*.py'))
    print(subprocess.run(['sh', '-c', 'cat; echo err >&2; exit 4'], input=b'in', capture_output=True))
    child = os.fork()
    if child == 0:
        os._exit(sum(range(10)))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    seen = []
    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    while len(seen) < 2:
        time.sleep(0.001)
    print([int(number) for number in seen])
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b'over')
        print(select.select([right], [], [], 5)[0] == [right], right.recv(9))
    lines = io.StringIO()
    logging.basicConfig(stream=lines, format='%(levelname)s %(message)s')
    logging.warning('logged %d', 5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        warnings.warn('careful')
    print(lines.getvalue().strip(), caught[0].message)


@station
def threads():
    work, results, lock, total = queue.Queue(), queue.Queue(), threading.Lock(), [0]

    def worker():
        while (item := work.get()) is not None:
            with lock:
                total[0] += item
            results.put(item * item)

    workers = [threading.Thread(target=worker) for _ in range(6)]
    for thread in workers:
        thread.start()
    for i in range(3000):
        work.put(i)
    for _ in workers:
        work.put(None)
    for thread in workers:
        thread.join()
    print(total[0], sum(results.get() for _ in range(3000)))

    async def ping(n):
        await asyncio.sleep(0)
        return n * 2

    async def main():
        tasks = [asyncio.create_task(ping(n)) for n in range(50)]
        process = await asyncio.create_subprocess_exec('echo', 'async', stdout=asyncio.subprocess.PIPE)
        output, _ = await process.communicate()
        try:
            await asyncio.wait_for(asyncio.sleep(30), 0.01)
        except TimeoutError:
            output += b'timeout'
        return sum(await asyncio.gather(*tasks)), output

    print(asyncio.run(main()))


for visit in stations:
    print('==', visit.__name__, flush=True)
    visit()
