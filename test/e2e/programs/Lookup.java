import java.net.InetAddress;

/** Prints the address of a name: {@code java Lookup.java NAME}. */
public class Lookup {
    public static void main(String[] args) throws Exception {
        System.out.println(InetAddress.getByName(args[0]).getHostAddress());
    }
}
