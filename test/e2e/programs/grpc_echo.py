"""A gRPC server and client of the service e2e.Echo, on the C core: grpc_echo.py serve|call ADDRESS, as programs/grpcecho."""
import concurrent.futures
import sys

import grpc
from google.protobuf.wrappers_pb2 import BytesValue

OPTIONS = [('grpc.max_receive_message_length', 8 << 20), ('grpc.max_send_message_length', 8 << 20)]
CODEC = dict(request_deserializer=BytesValue.FromString, response_serializer=BytesValue.SerializeToString)


def serve(address):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(64), options=OPTIONS)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler('e2e.Echo', {
        'Echo': grpc.unary_unary_rpc_method_handler(lambda message, _: message, **CODEC),
        'Peer': grpc.unary_unary_rpc_method_handler(
            lambda _, context: BytesValue(value=b'remote=' + context.peer().encode()), **CODEC),
        'Chat': grpc.stream_stream_rpc_method_handler(lambda messages, _: messages, **CODEC),
    })])
    if server.add_insecure_port(address) == 0:
        sys.exit('cannot listen on ' + address)
    server.start()
    server.wait_for_termination()


def call(address):
    codec = dict(request_serializer=BytesValue.SerializeToString, response_deserializer=BytesValue.FromString)
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        echo = channel.unary_unary('/e2e.Echo/Echo', **codec)
        for size in 0, 1, 100_000, 4_000_000:
            data = bytes([size % 251]) * size
            if echo(BytesValue(value=data), timeout=40, wait_for_ready=True).value != data:
                sys.exit(f'of {size} bytes others came back')

        def talk(i):
            sent = [BytesValue(value=bytes([i]) * 500 * n) for n in range(40)]
            return list(channel.stream_stream('/e2e.Echo/Chat', **codec)(iter(sent), timeout=40)) == sent
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            if not all(pool.map(talk, range(50))):
                sys.exit('on some stream other messages came back')
        print(channel.unary_unary('/e2e.Echo/Peer', **codec)(BytesValue(), timeout=40).value.decode())


{'serve': serve, 'call': call}[sys.argv[1]](sys.argv[2])
