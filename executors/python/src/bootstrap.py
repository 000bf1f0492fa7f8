exec(r"""
SOURCES = None

def start(sources):
    import sys
    version = '.'.join([str(part) for part in sys.version_info[:3]])
    def unusable(reason):
        sys.stderr.write('cob: cannot use %s (Python %s): %s\n' % (sys.executable, version, reason))
        sys.stderr.flush()
        sys.exit(78)
    implementation = getattr(getattr(sys, 'implementation', None), 'name', 'cpython')
    if implementation != 'cpython':
        unusable('CPython 3.10 or newer is needed, this is %s' % implementation)
    if sys.version_info < (3, 10):
        unusable('CPython 3.10 or newer is needed')
    if 't' in sys.abiflags:
        unusable('a CPython with the global interpreter lock is needed, this is a free-threaded build')
    in_folder = sys.path[:1] == ['']
    if in_folder:
        del sys.path[0]
    import _imp
    from _frozen_importlib import ModuleSpec
    try:
        spec = ModuleSpec('_cob', None, origin='/proc/self/fd/3')
        module = _imp.create_dynamic(spec)
        _imp.exec_dynamic(module)
    except ImportError as error:
        unusable('its module cannot be loaded: %s' % error)
    sys.modules['_cob'] = module
    module.main(in_folder, sources)

start(SOURCES)
""", {'__name__': 'cob_bootstrap'})
